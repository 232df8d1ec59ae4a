"""IE-KD, factor transfer, deep mutual learning: what their losses mean, and what spacing leaves alone."""

from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from spacedkd_lib.errors import InputError
from spacedkd_lib.methods import build, losses
from spacedkd_lib.models import heads, layers
from spacedkd_lib.recipes import Recipe, baseline, education, ie_kd, mutual, online_kd, spaced, teacher_of
from spacedkd_lib.training.loop import walk
from spacedkd_lib.training.optimizers import optimizers
from spacedkd_lib.training.train import assemble, sweep, train

BASE = Recipe(dataset="toy", model="resnet8", width=4, epochs=3, batch_size=8, lr=0.05, augment="crop_flip",
              val_fraction=0.2)
IE = ie_kd(BASE, inherit_weight=10.0, explore_weight=10.0)
INTERVALS = (0.0, 0.5, 1.0, 1.5, 3.0)


def made(recipe, classes=5, size=8):
    return build.make(recipe, 3, classes, size)


def pictures(count=6, size=8):
    draw = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, size, size, generator=draw), torch.arange(count) % 5


def same_weights(one, other, prefix):
    mine = {k: v for k, v in one[3].items() if k.startswith(prefix)}
    return mine and all(torch.equal(v, other[3][k]) for k, v in mine.items())


def test_coders_have_the_released_programs_parameters():
    count = layers.parameters
    assert count(heads.Paraphraser(64, 32)) == 129_600 and count(heads.Coder(64, 32)) == 64_768
    assert count(heads.Paraphraser(32, 32)) == 55_680 and count(heads.Coder(32, 32)) == 27_840
    x = torch.zeros(2, 64, 8, 8)
    assert heads.Coder(64, 32)(x).shape == (2, 32, 8, 8)


def test_released_pair_and_its_factor():
    ie = ie_kd(Recipe(dataset="cifar100", model="resnet20"), teacher_model="resnet56")
    d = build.make(ie, 3, 100, 32)
    assert layers.parameters(d.teacher) == 861_620 and layers.parameters(d.student) == 278_324
    x = torch.randn(2, 3, 32, 32)
    factor = d.paraphraser.eval().encoder(d.teacher_outputs(x).map)
    assert factor.shape == (2, 32, 8, 8) and d.map_loss.halves(d.student(x).map)["inherit"].shape == factor.shape


def test_losses_by_hand():
    x, y = torch.randn(3, 2, 2, 2, dtype=torch.float64), torch.randn(3, 2, 2, 2, dtype=torch.float64)
    a, b = (v.flatten(1) / v.flatten(1).norm(dim=1, keepdim=True) for v in (x, y))
    assert losses.factor_distance(x, y).item() == pytest.approx((a - b).abs().mean().item())
    assert losses.linear_cka(x, 3 * x + 1).item() == pytest.approx(1)


def test_a_students_step_is_the_weighted_sum_and_leaves_the_teacher_alone():
    d = made(replace(IE, alpha=0.3, inherit_weight=7.0, explore_weight=3.0))
    x, y = pictures()
    frozen = [module for name, module in d.modules.items() if name in ("teacher", "paraphraser")]
    before = [{k: v.clone() for k, v in module.state_dict().items()} for module in frozen]
    terms = d.learn(x, y)
    want = 0.7 * terms["hard"] + 0.3 * 9 * terms["soft"] + 7 * terms["inherit"] + 3 * terms["explore"]
    assert torch.isclose(terms["loss"], want)
    terms["loss"].backward()
    for module, held in zip(frozen, before):
        assert all(torch.equal(v, held[k]) for k, v in module.state_dict().items())
        assert all(p.grad is None for p in module.parameters())
    for name in ("student", "map_loss"):
        assert all(p.grad is not None for p in d.modules[name].parameters())


def test_what_each_side_minimises_points_where_it_says():
    """A step along the gradient of inheritance brings the encoded half nearer to the factor, of exploration farther."""
    d = made(IE)
    x, _ = pictures()
    factor = d.paraphraser.eval().encoder(d.teacher_outputs(x).map).detach()
    last = d.student(x).map.detach().requires_grad_()  # the map itself moves, its encoders do not
    d.map_loss.requires_grad_(False)
    sgd, seen = torch.optim.SGD([last], lr=1.0), []
    for _ in range(20):
        terms = d.map_loss.train()(last, factor)
        seen.append((terms["inherit"].item(), terms["explore"].item()))
        sgd.zero_grad()
        sum(terms.values()).backward()
        sgd.step()
    assert seen[-1][0] < seen[0][0] and seen[-1][1] < seen[0][1]


def test_the_paraphraser_learns_from_the_teachers_own_pass_and_teaches_it_nothing(toy):
    alone = train(replace(baseline(BASE), start="teacher"), toy)
    with_factor = train(IE, toy)
    taught = {k.replace("teacher.", "student."): v for k, v in with_factor[3].items() if k.startswith("teacher.")}
    assert all(torch.equal(v, alone[3][k]) for k, v in taught.items())
    errors = [row["teacher_reconstruction"] for row in with_factor[0]]
    assert errors[-1] < errors[0]


@pytest.mark.parametrize("interval", INTERVALS)
def test_without_weights_it_is_spaced_kd(toy, interval):
    kd = online_kd(BASE, interval=interval)
    plain = train(kd, toy)
    factors = train(ie_kd(kd, alpha=kd.alpha, beta=kd.beta, inherit_weight=0.0, explore_weight=0.0), toy)
    assert same_weights(plain, factors, "student.") and same_weights(plain, factors, "teacher.")


def test_every_interval_has_the_same_teacher_and_paraphraser_and_as_many_updates(toy):
    outcomes = sweep([spaced(IE, s) for s in INTERVALS], toy)
    for other in outcomes[1:]:
        assert same_weights(outcomes[0], other, "teacher.") and same_weights(outcomes[0], other, "paraphraser.")
        assert other[1]["student_updates"] == other[1]["teacher_updates"] == outcomes[0][1]["teacher_updates"]
    assert not same_weights(outcomes[0], outcomes[1], "student.")


def test_the_ramp_follows_the_students_data(toy):
    ramped = replace(IE, distil_start=1.0, ramp_epochs=1.0)
    weights = []
    loss = made(ramped).map_loss
    last, factor = torch.rand(2, 16, 2, 2), torch.rand(2, 8, 2, 2)
    for epoch in (0.0, 1.0, 1.5, 2.0, 3.0):
        terms, total = loss.weighted(last, factor, epoch)
        assert bool(terms) is (epoch > 1)  # what has no weight is not computed, nor recorded
        weights.append((total / sum(terms.values())).item() if terms else 0.0)
    assert weights == pytest.approx([0, 0, 5, 10, 10], rel=1e-3)
    runs, batches, _ = assemble([spaced(ramped, 1.0)], toy, torch.device("cpu"))
    seen = [runs[0].method.epoch for event, *_ in walk(runs, batches, lambda runs: [{}]) if event.kind == "learn"]
    assert seen == pytest.approx([i / len(batches) for i in range(len(seen))])


def test_diagnoses_tell_halves_from_each_other(toy):
    row = train(IE, toy)[0][-1]
    named = {"probe_inherit_cosine", "probe_explore_cosine", "probe_inherit_cka", "probe_explore_cka",
             "probe_halves_cka", "probe_reconstruction"}
    assert named <= row.keys() and row["probe_inherit_cosine"] > row["probe_explore_cosine"]
    d = made(IE)
    d.map_loss.inherit = d.paraphraser.encoder  # a student that is its teacher, seen through the teacher's encoder
    d.student = d.teacher
    d.map_loss.inherit_channels = torch.arange(16)
    got = d.diagnose(pictures()[0]) if d.teacher.eval() else None
    assert got["probe_inherit_cosine"] == pytest.approx(1) and got["probe_inherit_cka"] == pytest.approx(1)


def test_evaluation_leaves_every_network_as_it_was(toy):
    """In all modes of teaching, with a second set of pictures: nothing of the test pictures stays anywhere."""
    methods = [IE, mutual(IE), mutual(BASE), online_kd(BASE), education(BASE, (1, 2))]
    for recipe, mode in product(methods, ("eval", "train", "batch")):
        runs, batches, evaluate = assemble([replace(recipe, teacher_mode=mode)], toy, torch.device("cpu"))
        for event, *_ in walk(runs, batches, lambda runs: [{}]):
            if event.kind == "epoch":
                break
        before = {k: v.clone() for k, v in runs[0].weights().items()}
        first, second = evaluate(runs), evaluate(runs)
        assert first == second and all(torch.equal(v, before[k]) for k, v in runs[0].weights().items()), (recipe, mode)


def test_what_a_method_does_not_read_is_reset(toy):
    assert online_kd(IE).map_loss == "none" and teacher_of(online_kd(BASE)) == teacher_of(online_kd(IE, alpha=0.3))
    assert education(IE, (1, 2)).inherit_weight == Recipe().inherit_weight
    whole = education(BASE, (1, 1, 1), epochs=2, growth="none")
    assert teacher_of(whole) == teacher_of(spaced(whole, 1.0))  # fewer epochs than grades: none is asked for


def test_a_mutual_networks_cost_counts_its_coders():
    plain, factors = made(mutual(BASE)).cost, made(mutual(IE)).cost
    d = made(IE)
    assert factors["teach"] - plain["teach"] == d.cost["teach"] - 3 * layers.macs(d.teacher, 3, 8) + 3 * sum(
        layers.macs(coder, 8, 2) for coder in (d.map_loss.inherit, d.map_loss.explore))


# Mutual learning

def test_mutual_steps_by_hand():
    d, (x, y) = made(mutual(BASE, mutual_weight=2.0)), pictures()
    leader, follower = d.networks["teacher"], d.networks["student"]
    peer = follower.train()(x).logits
    terms = d.teach(x, y)
    own = leader.train()(x).logits
    want = F.cross_entropy(own, y) + 2 * F.kl_div(own.log_softmax(1), peer.softmax(1), reduction="batchmean")
    assert torch.isclose(terms["loss"], want, rtol=1e-4)
    terms["loss"].backward()
    assert all(p.grad is None for p in follower.parameters())
    assert all(p.grad is not None for p in leader.parameters())


def test_without_a_weight_peers_are_strangers(toy):
    strangers = train(mutual(BASE, mutual_weight=0.0), toy)
    for name in ("student", "teacher"):
        alone = train(replace(baseline(BASE), start=name), toy)
        assert all(torch.equal(v, strangers[3][k.replace("student.", f"{name}.")]) for k, v in alone[3].items())


def test_the_follower_sees_the_updated_leader_and_each_net_the_batch_once(toy):
    runs, batches, _ = assemble([mutual(BASE)], toy, torch.device("cpu"))
    nets = runs[0].method.networks
    for event, *_ in walk(runs, batches, lambda runs: [{}]):
        pass
    tracked = {name: next(b for k, b in net.named_buffers() if k.endswith("tracked")).item()
               for name, net in nets.items()}
    assert tracked == {"teacher": 3 * len(batches), "student": 3 * len(batches)}
    twice, batches, _ = assemble([mutual(BASE, teacher_mode="train")], toy, torch.device("cpu"))  # I9
    for event, *_ in walk(twice, batches, lambda runs: [{}]):
        pass
    net = twice[0].method.networks["student"]
    assert next(b for k, b in net.named_buffers() if k.endswith("tracked")).item() == 6 * len(batches)


@pytest.mark.parametrize("map_loss", ["none", "factor"])
def test_two_networks_train_each_other(toy, map_loss):
    weights = dict(inherit_weight=1.0, explore_weight=1.0) if map_loss == "factor" else {}
    recipe = mutual(BASE, interval=1.0, map_loss=map_loss, **weights)
    rows, summary, _, weights, _ = train(recipe, toy)
    assert summary["student_updates"] == summary["teacher_updates"] == 3 * 4
    assert {"student", "teacher"} <= {key.split(".")[0] for key in weights}
    assert ("student_inherit" in rows[-1]) == (map_loss != "none")
    held = optimizers(recipe, d := made(recipe))
    mine = [p for kind in held for group in held[kind].param_groups for p in group["params"]]
    assert len(mine) == len({id(p) for p in mine}) == sum(1 for m in d.modules.values() for _ in m.parameters())


@pytest.mark.parametrize("change, said", [
    (dict(model="resnet10", teacher_model="resnet8", width=8), "last maps do not match"),
    (dict(model="resnet8", width=0, teacher_model="resnet18"), "last maps do not match"),
])
def test_maps_that_do_not_match_are_refused(change, said):
    with pytest.raises(InputError, match=said):
        made(replace(IE, **change), size=16)


def test_an_odd_channel_count_is_refused():
    with pytest.raises(InputError, match="cannot be split into halves"):
        build.MapLoss(IE, 15, 8)


@pytest.mark.parametrize("change, said", [
    (dict(map_loss="none"), "map_loss"), (dict(inherit_weight=-1.0), "inherit_weight"),
    (dict(zero_target="pre_update"), "zero_target"), (dict(distil_start=9.0), "distil_start = 9.0"),
])
def test_contradictions_are_refused(change, said):
    with pytest.raises(InputError, match=said):
        replace(IE, **change)
