"""Education Distillation: schools, grades, growth, and what its losses say; and where spacing meets it."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from spacedkd_lib.data.batches import Batches
from spacedkd_lib.data.curriculum import ClassGroups
from spacedkd_lib.data.datasets import Dataset
from spacedkd_lib.errors import InputError
from spacedkd_lib.methods import build
from spacedkd_lib.methods.build import recipe_schedule
from spacedkd_lib.methods.education import GrowingResNet
from spacedkd_lib.models import layers, resnet
from spacedkd_lib.recipes import Recipe, education, grade_lengths, offline, partition, preset, spaced, teacher_of
from spacedkd_lib.schedule import Course, graded_schedule
from spacedkd_lib.training.loop import walk
from spacedkd_lib.training.rates import Clock, learning_rate
from spacedkd_lib.training.train import assemble, train

BASE = Recipe(dataset="toy", model="resnet8", width=4, epochs=6, batch_size=8, lr=0.05, augment="crop_flip",
              val_fraction=0.2)
SCHOOLS = (2, 1, 3)
ED = education(BASE, SCHOOLS)
WHOLE = replace(ED, growth="none")


@pytest.fixture(scope="module")
def six():
    """120 training pictures of 6 classes of unequal size, 36 test pictures."""
    draw = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (156, 3, 8, 8), dtype=torch.uint8, generator=draw)
    labels = torch.cat([torch.arange(120) % 8 % 6, torch.arange(36) % 6])
    return Dataset("toy", images[:120], labels[:120], images[120:], labels[120:], tuple("abcdef"))


def made(recipe, classes=6):
    return build.make(recipe, 3, classes, 8)


def pictures(labels):
    return torch.randn(len(labels), 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor(labels)


def quiet(runs):
    return [{} for _ in runs]


def walked(recipe, six):
    runs, batches, _ = assemble([recipe], six, torch.device("cpu"))
    return runs[0], batches, walk(runs, batches, quiet)


# The partition

@pytest.mark.parametrize("schools", [(), (6,), (1, 2, 3), (2, 2, 2), ((5, 0), (1, 3), (2, 4))])
def test_a_partition_is_disjoint_and_complete(schools):
    groups = partition(education(BASE, schools), 6)
    assert sorted(c for group in groups for c in group) == list(range(6))
    assert [len(g) for g in groups] == [len(s) if isinstance(s, tuple) else s for s in schools or (6,)]


def test_the_papers_schools():
    assert [len(g) for g in partition(education(BASE, (33, 33, 34)), 100)] == [33, 33, 34]
    growing = made(education(Recipe(dataset="cifar100", model="resnet20"), (33, 33, 34)), 100).growing
    heads = [head[-1].out_features for head in growing.references]
    assert heads == [33, 66] and growing.net.head.out_features == 100


@pytest.mark.parametrize("schools, said", [
    ((3, 2), "groups of 5 classes in all"), ((6, 0), "positive sizes"), ((0, 6), "positive sizes"),
    (((0, 1), (2, 3), (4,)), "no groups of the 6"), (((0, 1), (1, 2, 3, 4, 5)), "no groups of the 6"),
    (((0, 1, 2), (3, 4, 5, 6)), "no groups of the 6"), (((0, 1, 2, 3, 4, 5), ()), "no groups of the 6"),
    ((("a", 1, 2), (3, 4, 5)), "no tuple of whole numbers"),
])
def test_what_is_no_partition_is_refused(schools, said):
    with pytest.raises(InputError, match=said):
        made(education(BASE, schools))


@pytest.mark.parametrize("change, said", [
    (dict(grade_epochs=(3, 3)), "one number a group"), (dict(grade_epochs=(1, 1, 1)), "add up to the epochs"),
    (dict(grade_epochs=(6, 0, 0)), "whole numbers"), (dict(epochs=2), "too few for 3 grades"),
    (dict(growth="none", grade_epochs=(2, 2, 2)), 'growth = "none"'),
])
def test_contradictions_are_refused(change, said):
    with pytest.raises(InputError, match=said):
        replace(ED, **change)


def test_a_group_without_pictures_is_refused(six):
    chosen = (six.train_labels < 5).nonzero().flatten()[:96]
    fewer = Batches(six.train_images[chosen], six.train_labels[chosen], 8, seed=0)
    with pytest.raises(InputError, match="school 2 has 0 training images"):
        ClassGroups(fewer, education(BASE, (5, 1)), 6)


# Batches and schedule

def test_a_grade_holds_the_pictures_of_its_groups_each_once_an_epoch(six):
    for recipe in (ED, replace(ED, grade_batches="sequential")):
        _, school, _ = walked(recipe, six)
        course, batches = school.course(recipe), school.learned(recipe)
        start = 0
        for grade, (epochs, length) in enumerate(course.grades, start=1):
            known = [c for group in partition(recipe, 6)[:grade] for c in group]
            for epoch in range(epochs):
                seen = torch.cat([batches[start + epoch * length + j][1] for j in range(length)])
                want = school.batches.labels[torch.isin(school.batches.labels, torch.tensor(known))]
                assert sorted(seen.tolist()) == sorted(want.tolist())
            start += epochs * length


def test_sequential_batches_hold_one_group_each(six):
    _, school, _ = walked(replace(ED, grade_batches="sequential"), six)
    recipe = school.recipe
    groups = [{c for c in group} for group in partition(recipe, 6)]
    batches, total = school.learned(recipe), sum(e * n for e, n in school.course(recipe).grades)
    for i in range(total):
        held = set(batches[i][1].tolist())
        assert sum(bool(held & group) for group in groups) == 1


def test_strict_bounds_lose_classes_as_released(six):
    school = ClassGroups(Batches(six.train_images, six.train_labels, 8, 0),
                    education(BASE, (2, 2, 2), school_bounds="strict"), 6)
    kept = set(torch.cat([six.train_labels[chosen] for chosen in school.where]).tolist())
    assert kept == {0, 1, 3, 5}  # 2 and 4 begin a group: classes 33 and 66 of the released bounds
    hundred = ClassGroups(Batches(torch.randint(0, 255, (300, 1, 2, 2), dtype=torch.uint8), torch.arange(300) % 100, 8, 0),
                     education(BASE, (33, 33, 34), school_bounds="strict"), 100)
    assert [len(w) // 3 for w in hundred.where] == [33, 32, 33]


def test_each_lesson_is_of_one_group_and_an_epoch_holds_each_picture_once(six):
    _, school, _ = walked(ED, six)
    groups = [set(group) for group in partition(ED, 6)]
    for epoch in range(2):
        lessons = [school[epoch * len(school) + j] for j in range(len(school))]
        assert all(sum(bool(set(y.tolist()) & group) for group in groups) == 1 and len(y) > 1 for _, y in lessons)
        labels = sorted(torch.cat([y for _, y in lessons]).tolist())
        assert labels == sorted(school.batches.labels.tolist())


@pytest.mark.parametrize("interval", [0.0, 0.5, 1.0, 1.5, 2.0, 4.0, 6.0])
def test_the_schedule_of_grades(six, interval):
    recipe = spaced(ED, interval)
    _, school, _ = walked(recipe, six)
    course = school.course(recipe)
    events = list(recipe_schedule(recipe, course))
    total = sum(epochs * batches for epochs, batches in course.grades)
    assert [e.index for e in events if e.kind == "teach"] == list(range(6 * len(school)))
    assert [e.index for e in events if e.kind == "learn"] == list(range(total))
    assert [e.index for e in events if e.kind == "epoch"] == list(range(1, 7))
    assert [e.index for e in events if e.kind == "grow"] == [1, 2]
    done = Counter()
    for event in events:
        done[event.kind] += 1
        if event.kind == "grow":  # all of the grade is learnt, whatever the interval
            assert done["learn"] == sum(epochs * batches for epochs, batches in course.grades[:event.index])
        if event.kind == "epoch" and interval < 6:
            assert done["teach"] == event.index * len(school)
    if interval == 6:
        kinds = [e.kind for e in events]
        assert kinds.index("learn") > len(kinds) - 1 - kinds[::-1].index("teach")  # all lessons come first
        assert {e.block for e in events if e.kind in ("learn", "grow")} == {events[-1].block} == {0}


def test_blocks_have_the_intervals_length_in_epochs_of_the_grade():
    course = Course(((2, 4), (2, 8)), lessons=8)
    events = list(graded_schedule(course, 0.5))
    blocks = Counter(e.block for e in events if e.kind == "learn")
    assert list(blocks.values()) == [2] * 4 + [4] * 4 and sorted(blocks) == list(range(8))
    assert set(Counter(e.block for e in events if e.kind == "teach").values()) == {4}


def test_learning_rates_restart_with_a_grade_or_fall_once(six):
    for restart in ("restart", "continue"):
        recipe = replace(ED, lr_on_growth=restart)
        _, school, _ = walked(recipe, six)
        course = school.course(recipe)
        clock = Clock(recipe, course, [])
        rates = [clock.rate(e) for e in recipe_schedule(recipe, course) if e.kind == "learn"]
        first = [sum(e * n for e, n in course.grades[:g]) for g in range(3)]
        assert ([rates[i] == recipe.lr for i in first] == [True] * 3) == (restart == "restart")
        if restart == "restart":
            assert [rates[i + 1] for i in first] == [learning_rate(recipe, 1, e * n) for e, n in course.grades]
        if restart == "continue":
            assert rates == sorted(rates, reverse=True)
            assert rates[first[1]] == learning_rate(recipe, 2, 6)  # after a third of the epochs


# Growth

def test_the_released_grades_have_their_parameters():
    growing = made(education(Recipe(dataset="cifar100", model="resnet20"), (33, 33, 34)), 100).growing
    trunk, count = growing.net.trunk, layers.parameters
    bodies = [count(trunk.stem) + sum(map(count, trunk.stages[:depth])) for depth in growing.depths]
    assert bodies == [14_480, 66_128, 271_824]
    assert [count(head) for head in growing.references] == [34_977, 6_466]
    released = GrowingResNet(growing.net, [33, 66, 100], batch_norm=True)
    assert count(released.references[-1]) + count(growing.net.head) == 6_628
    plain = resnet.ResNet("resnet20", 100)
    shapes = [{k: v.shape for k, v in net.state_dict().items()} for net in (growing.net, plain)]
    assert shapes[0] == shapes[1]
    d = made(education(Recipe(dataset="cifar100", model="resnet20"), (33, 33, 34)), 100)
    assert len(d.macs) == 3 and d.macs == sorted(d.macs)


@pytest.mark.parametrize("stages, grades, depths", [("resnet8", 3, [1, 2, 3]), ("resnet10", 3, [2, 3, 4]),
                                                    ("resnet8", 5, [1, 1, 1, 2, 3]), ("resnet8", 1, [3])])
def test_depths(stages, grades, depths):
    assert GrowingResNet(resnet.ResNet(stages, 10, 3, 4), [1] * grades).depths == depths


def test_growth_keeps_lower_stages_bit_for_bit_and_ends_as_the_plain_network(six):
    run, _, steps = walked(ED, six)
    x = torch.randn(4, 3, 8, 8)
    growing, last = run.method.growing, None
    for event, *_ in steps:
        if event.kind == "grow":
            growing.eval()
            depth = growing.depths[event.index - 1]
            y = growing.net.trunk.stem(x)
            for stage in growing.net.trunk.stages[:depth]:
                y = stage(y)
            assert torch.equal(y, last), "what was in use has moved"
            assert growing.grade == event.index + 1
        elif event.kind == "epoch":
            with torch.no_grad():
                last = growing.eval().body(x)
    with torch.no_grad():
        assert torch.equal(growing.eval()(x), growing.net.eval()(x).logits)


def test_every_parameter_in_use_is_in_the_optimizer_once_and_momentum_is_kept(six):
    for keep in ("keep", "reset"):
        run, _, steps = walked(replace(ED, optimizer_on_growth=keep), six)
        held = {}
        for event, *_ in steps:
            mine = [p for group in run.optimizer["learn"].param_groups for p in group["params"]]
            wanted = {id(p) for module in run.method.growing.in_use for p in module.parameters()}
            assert len(mine) == len(wanted) and {id(p) for p in mine} == wanted
            state = run.optimizer["learn"].state
            if event.kind == "grow":
                kept = [p for p in mine if id(p) in held]
                assert kept and all((p in state) == (keep == "keep") for p in kept)
                assert keep == "reset" or all(torch.equal(state[p]["momentum_buffer"], held[id(p)]) for p in kept)
                assert any(id(p) not in held for p in mine)
            held = {id(p): state[p]["momentum_buffer"].clone() for p in mine if p in state}


# Losses

def test_the_sliced_loss_is_the_masked_loss():
    d = made(replace(ED, teacher_mode="eval"))
    d.growing.grade = 3
    x, y = pictures([0, 1, 2, 3, 4, 5, 3, 0])
    terms = d.learn(x, y)
    logits = d.growing.train()(x)
    total = 0.0
    for i, label in enumerate(y.tolist()):
        k = next(k for k, group in enumerate(d.groups) if label in group)
        mask = torch.full((6,), -math.inf)
        mask[d.groups[k]] = 0.0
        q = F.softmax(d.teachers[k].eval()(x[i:i + 1]).logits[0] / 4, dim=0)
        p = F.log_softmax((logits[i] + mask) / 4, dim=0)[d.groups[k]]
        total += (q * (q.log() - p)).sum()
    assert terms["soft"].item() == pytest.approx(total.item() / len(y), rel=1e-4)
    want = 0.3 * F.cross_entropy(logits, y) + 0.7 * 16 * total / len(y)
    assert terms["loss"].item() == pytest.approx(want.item(), rel=1e-4)


def test_lower_grades_speak_of_their_classes_only_in_any_partition():
    d = made(education(BASE, ((5, 0), (3,), (1, 2, 4))))
    x, y = pictures([5, 0, 0, 5])
    assert d.learn(x, y)["loss"].isfinite() and d.growing(x).shape == (4, 2)
    d.growing.eval()
    logits, whole = d.growing(x), d.predict(x)["student"]
    assert whole.shape == (4, 6) and torch.equal(whole[:, [5, 0]], logits)
    assert torch.equal(whole[:, [1, 2, 3, 4]], logits.amin(1, keepdim=True).expand(4, 4))


def test_a_teacher_learns_from_its_own_pictures_with_labels_of_its_own():
    d = made(ED)
    x, y = pictures([3, 5, 4, 3])
    terms = d.teach(x, y)
    want = F.cross_entropy(d.teachers[2].train()(x).logits, y - 3)
    assert terms["loss"].item() == pytest.approx(want.item(), rel=1e-5)
    terms["loss"].backward()
    assert all(p.grad is None for k in (0, 1) for p in d.teachers[k].parameters())
    assert d.teach(*pictures([0])) is None  # batch norm needs two


def test_teachers_are_left_alone_by_a_students_step():
    d = made(ED)
    d.grow(), d.grow()
    before = {k: v.clone() for k, v in d.teachers.state_dict().items()}
    terms = d.learn(*pictures([0, 1, 2, 3, 4, 5]))
    terms["loss"].backward()
    assert all(torch.equal(v, before[k]) for k, v in d.teachers.state_dict().items())
    assert all(p.grad is None for p in d.teachers.parameters())


# Training, spacing, sharing

def test_one_group_without_growth_or_a_soft_loss_is_the_baseline(six):
    one, alone = train(education(BASE, (), alpha=0.0, growth="none"), six), train(BASE, six)
    assert one[1]["test_accuracy"] == alone[1]["test_accuracy"]
    assert all(torch.equal(v, one[3][k]) for k, v in alone[3].items())


def test_all_share_their_teachers():
    alike = [ED, spaced(ED, 0.5), offline(ED), replace(WHOLE, interval=1.0), replace(ED, grade_epochs=(1, 2, 3))]
    assert len({teacher_of(recipe) for recipe in alike}) == 1


def test_fresh_batches_are_the_students_alone(six):
    recipe = replace(WHOLE, replay="fresh_batch")
    _, school, _ = walked(recipe, six)
    _, plain, _ = walked(WHOLE, six)
    assert torch.equal(school[0][0], plain[0][0])
    assert not torch.equal(school.learned(recipe)[0][0], plain.learned(plain.recipe)[0][0])


def test_an_interval_of_less_than_a_batch_is_refused(six):
    _, school, _ = walked(ED, six)
    with pytest.raises(InputError, match="less than one of the"):
        recipe_schedule(spaced(ED, 0.01), school.course(ED))


def test_a_group_of_one_class_can_be_named():
    d = made(education(BASE, ((5,), (0, 1, 2, 3, 4))))
    d.growing.eval()
    assert d.predict(pictures([5, 5])[0])["student"].argmax(1).tolist() == [5, 5]


def test_the_preset_has_the_released_grades_and_is_undone(six):
    long = education(replace(BASE, epochs=240), (2, 2, 2))
    released = preset(long, "released")
    assert grade_lengths(released) == (149, 30, 61) and preset(released, "released") == released
    assert preset(released, "clean") == long
    course = Course(tuple((e, n) for e, n in zip(grade_lengths(released), (4, 8, 12))), 12)
    clock, rates = Clock(released, course, []), []
    for event in recipe_schedule(released, course):
        if event.kind == "learn":
            rates.append((clock.epoch(event), clock.rate(event) / released.lr))
    for epoch, share in ((149.5, 1), (151, 0.1), (181, 0.01), (211, 0.001)):
        assert next(rate for at, rate in rates if at >= epoch) == pytest.approx(share)
    assert train(preset(education(BASE, (2, 2, 2)), "released"), six)[1]["test_accuracy"] >= 0


def test_the_matched_baseline_sees_as_many_images():
    from spacedkd_lib.lab import arms
    ed = education(replace(ED, epochs=10), (10, 26, 26))
    images = [n * e for n, e in zip((10, 36, 62), grade_lengths(ed))]
    assert arms._studied(ed) == pytest.approx(sum(images) / 62)


def test_rows_and_summary_tell_of_groups_grades_and_forgetting(six):
    rows, summary, *_ = train(spaced(ED, 1.0), six)
    grades = [row for row in rows if "grade1_test_accuracy" in row]
    assert len(grades) == 1 and grades[0]["epoch"] == 3
    assert rows[1]["test_seen_accuracy"] == grades[0]["grade1_test_seen_accuracy"]
    last = rows[-1]
    assert last["test_seen_accuracy"] == pytest.approx(last["test_accuracy"])
    shares = [2 / 6, 1 / 6, 3 / 6]
    assert last["test_accuracy"] == pytest.approx(sum(s * last[f"test_group{k}_accuracy"]
                                                      for k, s in enumerate(shares, 1)))
    assert summary["forgotten_group1"] == grades[0]["grade1_test_group1_accuracy"] - last["test_group1_accuracy"]
    assert rows[0]["test_group3_accuracy"] == 0 and "teacher3_test_accuracy" in last


def test_costs_follow_the_grades(six):
    run, school, steps = walked(ED, six)
    counted = Counter()
    for event, sharing, terms in steps:
        if event.kind in ("teach", "learn"):
            x, _ = (school.learned(ED) if event.kind == "learn" else school)[event.index]
            counted["macs"] += len(x) * run.method.cost[event.kind]
            counted[event.kind] += len(x)
    rows, summary, *_ = train(ED, six)
    teacher = run.method.teacher_macs
    assert summary["student_images"] == counted["learn"]
    assert summary["train_gmacs"] * 1e9 == pytest.approx(counted["macs"], rel=0.01)  # heads of teachers differ a little
    assert max(teacher) < 1.01 * min(teacher)


def test_default_grades_are_as_equal_as_can_be():
    for epochs in range(3, 20):
        lengths = grade_lengths(replace(ED, epochs=epochs))
        assert sum(lengths) == epochs and max(lengths) - min(lengths) <= 1 and sorted(lengths) == list(lengths)
    assert grade_lengths(replace(ED, epochs=240)) == (80, 80, 80) and grade_lengths(WHOLE) == (6,)


def test_heads_of_another_kind():
    d = made(replace(ED, final_head="batch_norm"))
    assert [name for name in d.growing.references.state_dict() if name.startswith("2.")][0] == "2.weight"
