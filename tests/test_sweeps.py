"""One teacher, many students: in lockstep each is, bit for bit, what it is alone."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from spacedkd_lib.errors import InputError
from spacedkd_lib.lab import grids, running, sweeps
from spacedkd_lib.recipes import (
    Recipe, baseline, behind, education, ema, ie_kd, offline, offline_kd, online_kd, preset, self_kd, spaced, teacher_of,
    transformer,
)
from spacedkd_lib.schedule import lockstep, spaced_schedule
from spacedkd_lib.store import records
from spacedkd_lib.training.loop import walk
from spacedkd_lib.training.train import assemble, sweep, train

BASE = Recipe(dataset="toy", model="resnet8", width=4, epochs=3, batch_size=8, lr=0.05, augment="crop_flip",
              val_fraction=0.2)
INTERVALS = (0.0, 0.4, 1.0, 1.5, 3.0)  # of 4 batches an epoch: 1, 1, 4, 6 and 12
ONLINE, EMA = online_kd(BASE), ema(BASE, ema_decay=0.8)
SPACED = spaced(ONLINE, 1.5)
CONTROLS = [replace(SPACED, **changes) for changes in (
    dict(rule="constant"), dict(replay="fresh_batch"), dict(soft_loss="kl_shuffled"))]
IE = ie_kd(BASE, inherit_weight=10.0, explore_weight=10.0)
SCHOOL = education(replace(BASE, val_fraction=0.0, train_images=27, batch_size=4), (1, 2))
VIT = online_kd(transformer(BASE, image_size=0, patch_size=4, width=8, depth=2, heads=2, epochs=3, batch_size=8, lr=1e-2,
                            warmup_epochs=1, augment="crop_flip", normalise="own", drop_path=0.4, head_init="timm"))


def of_one_teacher(name):
    students = [replace(preset(spaced(ONLINE, s), name), augment="crop_flip") for s in INTERVALS]
    return [*students, offline_kd(students[0]), replace(students[3], alpha=0.9, beta=0.0), teacher_of(students[0]),
            replace(students[0], precision="fp32", soft_loss="soft_cross_entropy")]


def under_dropout(**changes):
    online = online_kd(replace(BASE, dropout=0.5, **changes))
    return [online, spaced(online, 0.4), offline(online), ema(online)]


SWEEPS = {
    "clean": of_one_teacher("clean"), "released": of_one_teacher("released"), "controls": [SPACED, *CONTROLS],
    "behind": [behind(ONLINE, 1.0), behind(ONLINE, 1.5, rule="constant"), spaced(ONLINE, 1.0, distil_start=1.0)],
    "averages": [replace(EMA, ema_statistics="batch"), EMA, spaced(EMA, 0.4), spaced(EMA, 0.6), ONLINE, teacher_of(ONLINE)],
    "sine dropout": under_dropout(dropout_rule="sine", dropout_period=0.6),
    "random dropout": under_dropout(dropout_rule="random"),
    "factors": [spaced(IE, 0.5), offline(IE), spaced(replace(IE, explore_weight=0.0), 1.0), replace(IE, alpha=0.3)],
    "schools": [spaced(SCHOOL, 0.5), offline(replace(SCHOOL, growth="none")), replace(SCHOOL, alpha=0.0)],
    "transformers": [VIT, spaced(VIT, 1.5), replace(offline(VIT), teacher_mode="train")],
    "parts": [replace(spaced(ONLINE, s), batch_norm_parts=2, teacher_mode="train") for s in (0.0, 1.0)],
    "teacher's clock": [replace(spaced(ONLINE, s), student_clock="teacher") for s in (0.0, 1.0)],
}


def numbers(rows):
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]


def same(one, other):
    return (one[3].keys() == other[3].keys() and all(torch.equal(one[3][k], other[3][k]) for k in one[3])
            and numbers(one[0]) == numbers(other[0]) and one[1] == other[1] and one[4] == other[4])


@pytest.mark.parametrize("name", SWEEPS)
def test_each_student_is_what_it_is_alone(toy, name):
    recipes, teacher = SWEEPS[name], {}
    assert len({teacher_of(recipe).run_id for recipe in recipes}) == 1
    outcomes = sweep(recipes, toy)
    for recipe, together in zip(recipes, outcomes, strict=True):
        assert same(together, train(recipe, toy)), recipe.in_words()
        for key, value in together[3].items():
            assert not key.startswith("teacher") or "weight" not in key or torch.equal(teacher.setdefault(key, value), value)
    if name in ("controls", "behind"):  # what tells the students apart changes them, and not how many updates they make
        assert len({str(weights["student.head.weight"].tolist()) for *_, weights, _ in outcomes}) == len(recipes)
        assert {(summary["teacher_updates"], summary["student_updates"]) for _, summary, *_ in outcomes} == {(12, 12)}


def test_the_teacher_is_trained_once(toy):
    runs, batches, _ = assemble([online_kd(BASE, interval=s) for s in INTERVALS], toy, torch.device("cpu"))
    events = [event.kind for event, _, _ in walk(runs, batches, lambda runs: [{}] * len(runs))]
    assert events.count("teach") == 3 * len(batches) and events.count("learn") == 5 * 3 * len(batches)
    assert len({id(run.method.teacher) for run in runs}) == 1


def test_a_bf16_teacher_is_another_one():
    assert teacher_of(online_kd(BASE)) != teacher_of(online_kd(BASE, precision="bf16"))
    assert teacher_of(self_kd(BASE)) is None and teacher_of(baseline(BASE)) is None
    assert teacher_of(online_kd(BASE, teacher_width=8)).width == 8


@pytest.mark.parametrize("precision, half", [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_precision_is_that_of_the_layers_not_of_the_losses(toy, precision, half):
    run, = assemble([online_kd(BASE, precision=precision)], toy, torch.device("cpu"))[0]
    seen = []
    run.method.student.head.register_forward_hook(lambda *a: seen.append(a[2].dtype))
    x, y = torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64)
    run.step("teach", x, y, 0.1)
    terms = run.step("learn", x, y, 0.1)
    assert seen == [half] and terms["loss"].dtype == terms["soft"].dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in run.method.student.parameters())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_changes_the_numbers_a_little(toy, precision):
    exact, coarse = (train(online_kd(BASE, precision=p), toy)[0][0]["student_loss"] for p in ("fp32", precision))
    assert exact != coarse == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
def test_small_gradients_of_fp16_do_not_round_to_zero(toy, monkeypatch, optimizer):
    def gradient(precision):
        run, = assemble([baseline(replace(BASE, precision=precision, optimizer=optimizer))], toy, torch.device("cpu"))[0]
        learn = run.method.learn
        monkeypatch.setattr(run.method, "learn", lambda x, y: {"loss": 1e-4 * learn(x, y)["loss"]})
        generator = torch.Generator().manual_seed(0)
        run.step("learn", torch.randn(16, 3, 8, 8, generator=generator), torch.arange(16) % 3, 0.1)
        return torch.cat([p.grad.flatten() for p in run.method.student.parameters()])
    exact, half = gradient("fp32"), gradient("fp16")
    assert (half - exact).norm() < 0.15 * exact.norm()  # seen: 0.05 and 0.11; unscaled 0.4 and 0.5


def test_lockstep_keeps_every_schedule_and_shares_the_teacher():
    for epochs, length, intervals in product((1, 3), (1, 4, 7), ((0, 1), (0.5, 1, 0.3, 0), (1,), (0, 0))):
        def schedules():
            return {i: spaced_schedule(epochs, length, s) for i, s in enumerate(intervals)}
        merged = list(lockstep(schedules()))
        for name, events in schedules().items():
            assert [e[:2] for e, who in merged if name in who] == [e[:2] for e in events]
        assert sum(e.kind == "teach" for e, _ in merged) == epochs * length


def test_a_run_that_diverges_leaves_the_sweep_and_costs_no_other(toy):
    good, bad = online_kd(BASE, interval=1.0), online_kd(BASE, beta=1e18)
    failed, fine = sweep([bad, good], toy)
    assert isinstance(failed, InputError) and "student's update on batch 0, epoch 1" in str(failed)
    assert bad.run_id in str(failed) and same(fine, train(good, toy))


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0), (2, 1, 0)])
def test_whoever_teaches_teaches_for_all(toy, order):
    """The released s = 0 takes its targets from the teacher's own update, be that made for the baseline, or after the
    run that made it first has left."""
    released = preset(online_kd(replace(BASE, batch_size=6)), "released")
    trio = [replace(released, beta=1e18), teacher_of(released), released]
    for recipe, outcome in zip([trio[i] for i in order], sweep([trio[i] for i in order], toy)):
        assert isinstance(outcome, InputError) if recipe == trio[0] else same(outcome, train(recipe, toy))


def test_recipes_of_two_teachers_are_refused(toy):
    for other in (online_kd(replace(BASE, seed=1)), baseline(BASE)):
        with pytest.raises(InputError, match="do not share one teacher"):
            assemble([online_kd(BASE), other], toy, torch.device("cpu"))


def test_a_teacher_that_diverges_ends_all(toy):
    recipes = [online_kd(replace(BASE, lr=1e18), interval=s) for s in (1.0, 3.0)]
    assert all("teacher's update on batch 1, epoch 1" in str(outcome) for outcome in sweep(recipes, toy))


@pytest.mark.parametrize("change, shared", [(dict(val_fraction=0.0), True), (dict(), False),
                                            (dict(val_fraction=0.0, train_images=24), False)])
def test_pictures_are_copied_only_if_some_are_left_out(toy, change, shared):
    _, batches, _ = assemble([replace(BASE, **change)], toy, torch.device("cpu"))
    for held, given in ((batches.images, toy.train_images), (batches.labels, toy.train_labels)):
        assert (held.untyped_storage().data_ptr() == given.untyped_storage().data_ptr()) == shared
    if shared:
        assert torch.equal(batches.images, toy.train_images) and torch.equal(batches.labels, toy.train_labels)


def test_own_statistics_are_kept_apart(toy):
    """In the released program a look moves the teacher's running statistics: for the student that looked, alone."""
    recipes = [replace(preset(online_kd(BASE, interval=s), "released"), augment="none") for s in (1.0, 3.0)]
    runs, batches, evaluate = assemble(recipes, toy, torch.device("cpu"))
    for _ in walk(runs, batches, evaluate):
        pass
    seen = [run.weights()["teacher.trunk.stem.1.num_batches_tracked"] for run in runs]
    assert [int(n) for n in seen] == [24, 24]  # 12 updates and 12 looks
    assert not torch.equal(*[run.weights()["teacher.trunk.stem.1.running_mean"] for run in runs])


# The grid runner forms sweeps by itself

def test_sweeps_are_formed_from_what_is_missing(runs):
    recipes = grids.unique(grids.grid("quick", "05_spaced_kd", seeds=1))
    formed = sweeps.sweeps(recipes)
    assert sorted(recipe.run_id for s in formed for recipe in s.recipes) == sorted(r.run_id for r in recipes)
    sizes = sorted(len(s.recipes) for s in formed)
    assert sizes == [1, 1, 1, 7]  # apart what has no teacher; together online KD, its ways to ask, intervals, offline
    assert [s.cost for s in formed] == sorted((s.cost for s in formed), reverse=True)
    assert len(sweeps.sweeps(recipes, workers=9)) == 9  # rather two teachers than an idle core


def test_a_sweep_that_was_begun_goes_on_as_it_was(runs):
    glyphs = [r for r in grids.unique(grids.grid("quick", "05_spaced_kd", seeds=1)) if r.dataset == "glyphs"]
    begun, = sweeps.sweeps([r for r in glyphs if r.method == "online_kd"][:2], workers=1)  # two of seven
    records.write_atomically(begun.folder / "members.json", "[" + ",".join(r.to_json() for r in begun.recipes) + "]")
    formed = sweeps.sweeps(glyphs, workers=1)
    assert begun in formed
    assert sorted(r.run_id for s in formed for r in s.recipes) == sorted(r.run_id for r in glyphs)
    for damage in ("{damaged", "[5]", '{"a": {}}', 100_000 * "["):
        (begun.folder / "members.json").write_text(damage)
        assert begun not in sweeps.sweeps(glyphs, workers=1) and begun.folder.exists()
    (begun.folder / "a folder").mkdir()
    sweeps.forget(begun.folder)
    assert not begun.folder.exists()


def test_side_by_side_in_sweeps_equals_one_by_one(runs, monkeypatch):
    few = ("baseline", "online KD", "spaced KD s=1.5")
    recipes = [row.recipe for row in grids.grid("smoke", "05_spaced_kd", seeds=1)
               if row.arm in few and row.setting == "digits"]
    lines = []
    together = running.run_all(recipes + recipes[:1], workers=2, say=lines.append)
    assert [record.provenance["runs_in_sweep"] for record in together] == [1, 2, 2] and lines
    with monkeypatch.context() as patched:
        patched.setattr(running, "_train_side_by_side", lambda *_: pytest.fail("trained again"))
        assert running.run_all(recipes) == together
    monkeypatch.setenv("SPACEDKD_RUNS", str(runs.parent / "alone"))
    for record, recipe in zip(together, recipes, strict=True):
        assert running.run(recipe).numbers() == record.numbers()
        monkeypatch.setenv("SPACEDKD_RUNS", str(runs))
        swept = records.load_weights(recipe)
        monkeypatch.setenv("SPACEDKD_RUNS", str(runs.parent / "alone"))
        alone = records.load_weights(recipe)
        assert all(torch.equal(alone[name], swept[name]) for name in alone | swept)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_order_of_a_sweep_does_not_matter(toy, order):
    """IE-KD's teacher has a paraphraser, whichever recipe comes first; and the baseline's record tells of labels."""
    factors = ie_kd(BASE, inherit_weight=10.0, explore_weight=10.0)
    recipes = [factors, teacher_of(factors)]
    together = sweep([recipes[k] for k in order], toy)
    assert all(same(got, train(recipes[k], toy)) for k, got in zip(order, together))


@pytest.mark.parametrize("changes", [dict(batch_size=8, train_images=21), dict(batch_size=7, train_images=21)])
def test_parts_of_one_picture_are_refused_before_training(toy, changes):
    with pytest.raises(InputError, match="batch_norm_parts = 3"):
        assemble([replace(BASE, batch_norm_parts=3, **changes)], toy, torch.device("cpu"))
