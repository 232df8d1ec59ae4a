"""Transformers in the loop: AdamW and its schedule, idle updates, the released program's switches, and the words for
bad input."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from spacedkd_lib.analysis import adamw_idle
from spacedkd_lib.data.batches import derive_seed
from spacedkd_lib.errors import InputError
from spacedkd_lib.lab import grids
from spacedkd_lib.methods import build, losses
from spacedkd_lib.models.transformers import no_decay
from spacedkd_lib.recipes import (
    Recipe, baseline, defaults, deviations_of, education, ema, ie_kd, mutual, offline_kd, online_kd, preset, self_kd,
    set_deviation, spaced, teacher_of, transformer,
)
from spacedkd_lib.schedule import counts, spaced_schedule
from spacedkd_lib.training import loop, optimizers, rates, train
from spacedkd_lib.training.run import batch_of

DEIT = "timm/deit_tiny_patch16_224"
BASE = transformer(Recipe(dataset="toy"), image_size=0, patch_size=4, width=8, depth=2, heads=2, epochs=3, batch_size=8,
                   lr=1e-2, warmup_epochs=1, augment="crop_flip", normalise="own", drop_path=0.4, head_init="timm")
ONLINE, SPACED = online_kd(BASE), online_kd(BASE, interval=1.5)
RELEASED = {s: replace(preset(online_kd(BASE, interval=s), "released"), augment="crop_flip") for s in (0.0, 1.0, 1.5)}


def made(recipe, classes=3):
    return build.make(recipe, 3, classes, 8)


def weights(recipe, toy):
    return train.train(recipe, toy)[3]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_released_learning_rates():
    recipe, told = transformer(Recipe()), {}
    for epoch in (0, 1, 10, 19, 20, 150, 299):
        told[epoch] = rates.learning_rate(recipe, epoch * 390 + 389, 300 * 390)
        assert told[epoch] == rates.learning_rate(recipe, epoch * 390, 300 * 390)  # once an epoch
    assert told == pytest.approx({0: 5e-7, 1: 2.5475e-5, 10: 2.5025e-4, 19: 4.7503e-4, 20: 4.9459e-4, 150: 2.525e-4,
                                  299: 5.0136e-6}, rel=1e-4)
    assert 390 * 0.05 * sum(rates.learning_rate(recipe, e, 300) for e in range(300)) == pytest.approx(1.380, abs=1e-3)


def test_adamw_decays_matrices_only():
    net = made(baseline(BASE)).student
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = optimizers.optimizer_of(BASE, net)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in net.named_parameters():
        kept = 1.0 if no_decay(name, p) else 1 - BASE.lr * BASE.weight_decay
        assert torch.allclose(p, kept * before[name], rtol=1e-6), name
    names = {name.split(".")[-1] for name, p in net.named_parameters() if no_decay(name, p)}
    assert names >= {"bias", "cls_token", "pos_embed"}


def test_idle_updates_are_those_of_one_optimizer_over_both_networks(toy):
    """The released loop, written out: one AdamW, and losses of zero that reach every parameter of the idle network."""
    recipe = replace(RELEASED[1.5], replay="same", extra_step=False, dist_token="never", tail="drop")
    (run,), batches, evaluate = train.assemble([recipe], toy, torch.device("cpu"))
    pair = made(recipe)
    both = torch.nn.ModuleList([pair.teacher, pair.student])
    optimizer = optimizers.optimizer_of(recipe, both)
    for event, _, _ in loop.walk([run], batches, evaluate):
        if event.kind == "epoch":
            continue
        x, y = batches[event.index]
        # The student's rate is that of the epoch in which its block comes, which is its teacher's.
        teacher_batch = event.index if event.kind == "teach" else (event.block + 1) * 6 - 1
        for group in optimizer.param_groups:
            group["lr"] = rates.learning_rate(recipe, min(teacher_batch, 11), 12)
        torch.manual_seed(derive_seed(0, "noise", event.kind, event.index))
        if event.kind == "teach":
            loss, still = F.cross_entropy(pair.teacher.train()(x).logits, y), pair.student
        else:
            with torch.no_grad():
                target = pair.teacher.train()(x).logits
            outputs, still = pair.student.train()(x), pair.teacher
            loss = 0.5 * F.cross_entropy(outputs.logits, y) + 0.5 * losses.kl_per_class(outputs.logits, target, 1.0)
        optimizer.zero_grad()
        (loss + 0.0 * sum(p.sum() for p in still.parameters())).backward()
        optimizer.step()
    for name in ("teacher", "student"):
        got = run.method.modules[name].state_dict()
        for key, value in getattr(pair, name).state_dict().items():
            assert torch.allclose(value, got[key], atol=1e-6), (name, key)


def test_an_idle_network_rests_unless_told_to_move(toy):
    for recipe, moves in ((SPACED, False), (replace(SPACED, idle_update="zero_grad"), True)):
        (run,), batches, evaluate = train.assemble([recipe], toy, torch.device("cpu"))
        walk, moved = loop.walk([run], batches, evaluate), {"teach": [], "learn": []}
        held = {name: module.state_dict() for name, module in run.method.modules.items()}
        before = {name: {k: v.clone() for k, v in state.items()} for name, state in held.items()}
        for event, *_ in walk:
            if event.kind in moved:
                other = "student" if event.kind == "teach" else "teacher"
                moved[event.kind].append(not same(held[other], before[other]))
            before = {name: {k: v.clone() for k, v in state.items()} for name, state in held.items()}
        assert any(moved["teach"]) == any(moved["learn"]) == moves
        assert all(moved["learn"]) == moves  # a teacher that has momentum drifts in each update of its student
    assert teacher_of(SPACED) == teacher_of(ONLINE) and teacher_of(replace(SPACED, idle_update="zero_grad")) is None
    joint = replace(ONLINE, idle_update="zero_grad")  # one backward pass for both: nobody is idle
    assert same(weights(joint, toy), weights(ONLINE, toy))


def test_drift_in_closed_form():
    weight = torch.nn.Parameter(torch.tensor([5.0]))
    optimizer = torch.optim.AdamW([weight], lr=1e-3, weight_decay=0.0)
    for _ in range(6000):  # a gradient as steady as can be, and the corrections over
        weight.grad = torch.tensor([1.0])
        optimizer.step()
    start, told = weight.item(), {}
    for count in range(1, 101):
        adamw_idle._step(optimizer)
        told[count] = (start - weight.item()) / 1e-3
    assert told[1] == pytest.approx(adamw_idle.coasting(1), rel=1e-2) and told[100] == pytest.approx(9.05, rel=1e-2)
    sizes = adamw_idle.update_sizes(200)
    v = 0.5
    for turn_number in range(40):
        measured = []
        for gradient in [1.0] * 200 + [0.0] * 200:
            v = 0.999 * v + 0.001 * gradient**2
            measured.append(v**-0.5)
    assert sizes == pytest.approx(measured[:200], rel=1e-6)
    recipe = replace(baseline(BASE), dataset="digits", train_images=100, drop_path=0.0, patch_size=8)
    frame = adamw_idle.drift(recipe, 40, [1, 30]).set_index(["part", "idle"])
    assert (frame.xs(0, level="idle")["distance"] == 0).all()
    assert frame.loc[("all", 30), "distance"] > 3 * frame.loc[("decay", 30), "distance"] > 0
    lengths = adamw_idle.resumed(recipe, 40, 20, 3)
    assert lengths["length"][0] == pytest.approx(lengths["predicted"][0], rel=0.02) and lengths["predicted"][0] > 1
    with pytest.raises(InputError, match="shows no drift"):
        adamw_idle.drift(baseline(Recipe(dataset="toy")), 40, [1])


def test_released_counts_of_batches_and_updates(toy):
    """CIFAR-100: 390 full batches an epoch, and the table of blocks."""
    for s, block, learned in ((0.5, 195, 195), (1.0, 390, 391), (1.5, 585, 585), (2.0, 780, 781)):
        found = counts(spaced_schedule(6, 390, s, extra_step=True))
        assert found.first == learned and found.teach == 6 * 390 and found.never == 0
        assert found.blocks == 6 * 390 // block and found.learn == found.blocks * learned
    (run,), batches, _ = train.assemble([BASE], toy, torch.device("cpu"))
    assert len(batches) == 4 and {len(batches[i][1]) for i in range(4)} == {8}  # 36 pictures: 4 are left out
    seen = torch.cat([batches.indices(i) for i in range(4)])
    assert len(seen.unique()) == 32 and len(batches.fresh()) == 4


def test_a_second_loader_starts_anew_with_each_block(toy):
    def drawn(s, blocks=2):
        recipe = replace(RELEASED[1.0], interval=s, extra_step=False, epochs=4)
        events = [e for e in build.recipe_schedule(recipe, 4) if e.kind == "learn"]
        return [[batch_of(recipe, e, 4) for e in events if e.block == block] for block in range(blocks)]
    assert drawn(0.5) == [[0, 1], [4, 5]]  # half of an order, then half of another
    assert drawn(1.0) == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert drawn(1.5) == [[0, 1, 2, 3, 4, 5], [8, 9, 10, 11, 12, 13]]  # a whole order, and half of another
    last = [e for e in build.recipe_schedule(replace(RELEASED[1.0], epochs=4), 4) if e.kind == "learn" and e.block == 0]
    assert [batch_of(RELEASED[1.0], e, 4) for e in last] == [0, 1, 2, 3, 4]  # V10: one of the next order
    batches = train.assemble([SPACED], toy, torch.device("cpu"))[1]
    assert not torch.equal(batches.fresh().indices(0), batches.indices(0))
    assert train.train(RELEASED[1.0], toy)[1]["student_updates"] == 3 * 5


@pytest.mark.parametrize("s", [1.0, 1.5])
def test_a_walk_teaches_from_the_second_loader(toy, s):
    recipe, learnt, wanted = RELEASED[s], [], []
    (run,), batches, evaluate = train.assemble([recipe], toy, torch.device("cpu"))
    second, learn = batches.fresh(), run.method.learn
    run.method.learn = lambda x, y: learnt.append((x, y)) or learn(x, y)
    for event, *_ in loop.walk([run], batches, evaluate):
        if event.kind == "learn":
            wanted.append(second[batch_of(recipe, event, len(batches))])
    assert len(learnt) == len(wanted) == {1.0: 3 * 5, 1.5: 12}[s]
    for (x, y), (pixels, labels) in zip(learnt, wanted):
        assert torch.equal(x, pixels) and torch.equal(y, labels)


def test_drop_path_is_at_work(toy):
    assert not same(weights(BASE, toy), weights(replace(BASE, drop_path=0.0), toy))


def test_what_each_switch_does():
    x, y = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    logits = torch.randn(4, 5, requires_grad=True)
    other = torch.randn(4, 5)
    whole, = torch.autograd.grad(losses.kl(logits, other, 2.0), logits)
    share, = torch.autograd.grad(losses.kl_per_class(logits, other, 2.0), logits)
    assert torch.allclose(5 * share, whole)

    torch.manual_seed(0)
    one, two = made(ONLINE), made(replace(ONLINE, student_forwards=2))
    calls = []
    two.student.register_forward_hook(lambda *a: calls.append(a[2].logits))
    terms = two.learn(x, y)
    assert len(calls) == 2 and not torch.equal(*calls)
    target = two.teacher_outputs(x).logits
    assert torch.allclose(terms["soft"], losses.kl(calls[1], target, 1.0))
    assert torch.allclose(terms["hard"], F.cross_entropy(calls[0], y))
    assert two.cost["learn"] - one.cost["learn"] == one.cost["teach"]

    still, noisy = made(ONLINE), made(replace(ONLINE, teacher_mode="train"))
    assert torch.equal(still.teacher_outputs(x).logits, still.teacher_outputs(x).logits)
    assert not torch.equal(noisy.teacher_outputs(x).logits, noisy.teacher_outputs(x).logits)

    light, full = made(replace(ONLINE, teacher_weight=0.5, drop_path=0.0)), made(replace(ONLINE, drop_path=0.0))
    assert torch.equal(2 * light.teach(x, y)["loss"], full.teach(x, y)["loss"])


def test_the_distillation_token_of_the_released_student():
    x, y = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    pair = made(replace(ONLINE, dist_token="released", drop_path=0.0))
    net = pair.student.net
    assert hasattr(net, "head_dist") and not hasattr(pair.teacher.net, "head_dist")
    assert not hasattr(made(replace(baseline(BASE), dist_token="released")).student.net, "head_dist")
    terms = pair.learn(x, y)
    for term, hit, missed in (("hard", net.head, net.head_dist), ("soft", net.head_dist, net.head)):
        found = torch.autograd.grad(terms[term], [hit.weight, missed.weight], retain_graph=True, allow_unused=True)
        assert found[0].abs().sum() > 0 and found[1] is None, term
    alone = made(replace(baseline(BASE), dist_token="always", drop_path=0.0))
    outputs = alone.student.train()(x)
    assert alone.learn(x, y)["loss"].item() == pytest.approx(
        (F.cross_entropy(outputs.logits, y) + F.cross_entropy(outputs.distilled, y)).item() / 2)
    two = replace(ONLINE, dist_token="always", drop_path=0.0)  # a teacher with two gives one answer, in train mode too
    clean, trains = made(two), made(replace(two, teacher_mode="train"))
    assert torch.equal(trains.teacher_outputs(x).logits, clean.teacher_outputs(x).logits)
    clean.teach(x, y)
    assert torch.equal(clean.views["logits"], clean.teacher_outputs(x).logits)
    averaged = made(ema(two, ema_statistics="batch"))
    assert torch.equal(averaged.predict(x)["teacher"], averaged.teacher.eval()(x).logits)
    zero = made(replace(RELEASED[1.5], head_init=transformer(Recipe()).head_init))
    assert zero.student.net.head.weight.abs().sum() == 0 == zero.teacher.net.head.weight.abs().sum()


def test_the_preset_says_what_the_configurations_say():
    recipe = transformer(Recipe())
    assert (recipe.model, recipe.optimizer, recipe.lr, recipe.weight_decay) == (DEIT, "adamw", 5e-4, 0.05)
    deit = preset(online_kd(recipe, interval=1.5), "released")
    assert (deit.idle_update, deit.student_forwards, deit.dist_token) == ("zero_grad", 1, "released")
    assert preset(online_kd(recipe), "released").teacher_weight == 0.5
    pit = replace(recipe, model="timm/pit_ti_224")
    for named, contains in ((0.5, 0.5), (1.0, 1.0), (1.5, 1.0), (2.0, 1.0)):
        assert preset(online_kd(pit, interval=named), "released").interval == contains  # V3
    assert preset(online_kd(pit), "released").student_forwards == 2
    assert preset(offline_kd(recipe), "released").idle_update == "skip"
    for base in (online_kd(recipe, interval=1.5), online_kd(pit), offline_kd(pit)):
        assert preset(preset(base, "released"), "clean") == base


def test_the_registry_and_its_preset(toy):
    clean, told = weights(SPACED, toy), {}
    at_zero = preset(ONLINE, "released")
    for d in deviations_of("V"):
        told |= d.released.get("online_kd", {}) if d.in_preset else {}
        if not d.released:
            continue
        base = SPACED if d.id != "V10" else replace(SPACED, interval=1.0, replay="restart", student_clock="teacher")
        changed = set_deviation(base, d.id)
        assert set_deviation(changed, d.id, "clean") == base and not same(weights(changed, toy), clean), d.id
        if d.id == "V11":  # AdamW divides by the gradient's size
            assert torch.allclose(weights(changed, toy)["teacher.net.head.weight"], clean["teacher.net.head.weight"],
                                  atol=2e-2)
        if not d.in_preset:  # such a row says what the preset sets at s = 0
            assert set_deviation(at_zero, d.id) == at_zero, d.id
    told |= dict(zero_target="pre_update", teacher_weight=1.0)  # A7, the CNN programs' too
    pit = online_kd(replace(BASE, model="timm/pit_ti_224"), interval=0.5)
    assert preset(pit, "released") == replace(pit, **told | dict(dist_token="never"))
    assert preset(SPACED, "released") == replace(SPACED, **told | dict(student_forwards=1))


def test_only_distillation_has_a_weight_of_the_soft_loss():
    released = dict(alpha=0.5, temperature=1.0, beta=0.0)
    for method in (online_kd, offline_kd):
        assert vars(method(BASE)).items() >= released.items()
        assert method(ONLINE, alpha=0.9).alpha == 0.9 and method(replace(ONLINE, alpha=0.9)).alpha == 0.9


OF_ITS_OWN_SIZES = dict(patch_size=0, width=0, depth=0, heads=0)


@pytest.mark.parametrize("changes, teacher", [
    (dict(precision="bf16"), {}), (dict(model="timm/pit_ti_224", image_size=32, **OF_ITS_OWN_SIZES), {}),
    (dict(image_size=16, augment="strong", normalise="imagenet"), {}),
    (dict(model="timm/pvt_v2_b0", image_size=32, **OF_ITS_OWN_SIZES), {}),
    (dict(model="timm/resnet18", drop_path=0.0, **OF_ITS_OWN_SIZES), dict(teacher_model="resnet8", teacher_width=4))])
def test_other_networks_and_sizes_learn(toy, changes, teacher):
    recipe = online_kd(replace(BASE, epochs=2, **changes), interval=0.5, **teacher)
    rows, summary, *_ = train.train(recipe, toy)
    assert summary["student_updates"] == 8 and all(math.isfinite(row["student_loss"]) for row in rows)


def test_the_batches_have_the_size_that_the_network_sees(toy):
    for size in (0, 16):
        batches = train.assemble([replace(BASE, image_size=size)], toy, torch.device("cpu"))[1]
        assert batches[0][0].shape == (8, 3, size or 8, size or 8)


def test_networks_that_drop_by_default_are_silent(toy):
    still = replace(baseline(BASE), patch_size=0, depth=0, heads=0, width=0, image_size=64, drop_path=0.0)
    x = torch.randn(2, 3, 64, 64)
    for name in ("focalnet_tiny_srf", "ghostnet_050"):  # by layers, and by a function of torch
        net = made(replace(still, model=f"timm/{name}")).student
        assert torch.equal(net.train()(x).logits, net(x).logits), name


def test_networks_of_other_kinds_teach(toy):
    assert teacher_of(replace(ONLINE, teacher_model="timm/vit_tiny_patch16_224")).patch_size == 0
    assert teacher_of(replace(ONLINE, teacher_width=12)) == replace(teacher_of(ONLINE), width=12)
    for changes in (dict(teacher_model="resnet8", teacher_width=4), dict(teacher_model="timm/resnet18"),
                    dict(teacher_model=DEIT.replace("tiny", "small"), image_size=16)):
        pair = made(replace(ONLINE, **changes))
        assert pair.learn(torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))["loss"].isfinite(), changes
    beside_cnn = replace(ONLINE, teacher_model="resnet8")
    assert teacher_of(beside_cnn).width == 0  # an embedding dimension is no number of channels
    assert made(beside_cnn).teacher.trunk.stem[0].out_channels == 16
    assert made(replace(beside_cnn, teacher_width=4)).teacher.trunk.stem[0].out_channels == 4
    cnn = online_kd(Recipe(model="resnet8", width=4))
    assert teacher_of(replace(cnn, teacher_model=DEIT)).width == 0
    assert teacher_of(replace(cnn, teacher_model="resnet14")).width == 4  # of one kind a width is inherited
    assert transformer(Recipe(model="timm/pit_ti_224")).model == "timm/pit_ti_224"
    assert transformer(Recipe(model="timm/deit3_small_patch16_224")).head_init == "timm"


def test_vectors_have_batch_norms_too():
    levit = replace(ONLINE, model="timm/levit_128s", patch_size=0, width=0, depth=0, heads=0, image_size=32)
    pair = made(replace(levit, teacher_mode="batch", drop_path=0.0))
    before = {name: value.clone() for name, value in pair.teacher.state_dict().items()}
    pair.teacher_outputs(torch.randn(4, 3, 8, 8))
    assert same(pair.teacher.state_dict(), before)


def test_costs_are_of_whole_batches(toy):
    def work(size):
        return train.train(replace(baseline(BASE), batch_size=size, epochs=2), toy)[1]["train_gmacs"]
    assert work(18) / work(19) == pytest.approx(36 / 19)  # two batches of 18 an epoch, or one of 19


def test_mutual_learning_of_transformers(toy):
    assert train.train(mutual(BASE, interval=1.5), toy)[1]["student_updates"] == 12


@pytest.mark.parametrize("make, sentence", [
    (lambda: Recipe(model="resnet9"), '"resnet9" is not a model; did you mean "resnet'),
    (lambda: Recipe(model="deit_tiny_patch16_224"), 'a network of timm is written "timm/deit_tiny_patch16_224"'),
    (lambda: preset(online_kd(Recipe(model=DEIT)), "released"),
     r'optimizer = "sgd": derive the recipe with transformer\('),
    (lambda: preset(baseline(BASE), "released"), "defined for online_kd, self_kd, ie_kd, mutual, education, ema, not"),
    (lambda: Recipe(image_size=32), "image_size = 32 is for transformers and resnet18 is none"),
    (lambda: self_kd(BASE), "self_kd needs the stages of a CIFAR ResNet"),
    (lambda: education(BASE, (1, 2)), "education needs the stages of a CIFAR ResNet"),
    (lambda: replace(BASE, warmup_epochs=3), "warmup_epochs = 3 leaves nothing of 3 epochs"),
    (lambda: replace(SPACED, replay="restart", rule="constant"), 'set rule = "fixed"'),
    (lambda: replace(SPACED, extra_step=True), 'set replay = "restart"'),
    (lambda: replace(ONLINE, dist_token="always", alpha=0.0), "learns from the soft loss"),
    (lambda: replace(BASE, drop_path=1.0), "drop_path = 1.0 is out of range"),
    (lambda: made(replace(BASE, model="timm/deit_tiny_patch16_225")), "deit_tiny_patch16_224"),
    (lambda: made(replace(BASE, patch_size=3)), "do not divide into the patches of timm/deit_tiny_patch16_224, 3 x 3"),
    (lambda: replace(SPACED, idle_update="zero_grad", optimizer="sgd"), 'idle_update = "zero_grad"'),
    (lambda: replace(BASE, batch_norm_parts=2), "batch_norm_parts = 2 is for CIFAR ResNets"),
    (lambda: replace(BASE, dropout=0.1), "dropout = 0.1 stands after the stages"),
    (lambda: ema(BASE, ema_statistics="batch"), "drop_path = 0.4 would disturb"),
    (lambda: made(replace(BASE, model="timm/pvt_v2_b0", patch_size=0, width=0, depth=0, heads=0, image_size=32,
                          dist_token="always")), "token"),
    (lambda: made(ie_kd(BASE)), "does not end in a map"),
])
def test_bad_input_is_refused_in_a_sentence(make, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        make()
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_the_arms_of_the_notebook():
    rows = grids.grid("study", "12_vision_transformers", seeds=1)
    arms = {row.arm: row.recipe for row in rows if row.setting == "glyphs"}
    assert replace(arms["released, no idle updates s=1.5"], idle_update="zero_grad") == arms["released spaced KD s=1.5"]
    assert arms["idle updates, no KD s=1.5"].alpha == 0 and all(r.augment == "none" for r in arms.values())
    assert arms["released spaced KD s=1.5"].student_clock == "own"
    for profile in ("core", "paper"):
        there = {(row.setting, row.arm): row.recipe for row in grids.grid(profile, "12_vision_transformers", seeds=1)}
        deit = next(setting for setting, _ in there if profile == "core" or "deit" in setting)
        online = there[deit, "online KD"]
        assert there[deit, "released spaced KD s=1.5"] == preset(spaced(online, 1.5), "released")
    large = {row.recipe.model for row in grids.grid("paper", "12_vision_transformers") if row.recipe.image_size == 224}
    assert large == {DEIT, "timm/pit_ti_224", "timm/pvt_v2_b0", "pvt_tiny", "t2t_vit_7"}
    assert all(grids.grid("paper", name) == [row for row in grids.grid("paper", name) if "224" not in row.setting]
               for name in ("02_baselines", "05_spaced_kd"))
    assert defaults(("idle_update",)) == {"idle_update": "skip"} and spaced(ONLINE, 1.5) == SPACED
