"""Recipes: identity, presets, and one clear sentence for every bad value."""

import gzip
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from spacedkd_lib import recipes
from spacedkd_lib.errors import InputError
from spacedkd_lib.recipes import (
    METHODS, Recipe, baseline, education, ema, foreign, from_dict, ie_kd, mutual, offline_kd, online_kd, past_self,
    preset, self_kd, spaced, teacher_of, transformer,
)
from spacedkd_lib.recipes.derive import forward_passes, one_network
from spacedkd_lib.recipes.deviations import released_fields
from spacedkd_lib.store import records

OF_METHOD = dict(zip(METHODS, (
    baseline(Recipe()), online_kd(Recipe()), offline_kd(Recipe()), self_kd(Recipe()), ie_kd(Recipe()), mutual(Recipe()),
    education(Recipe(), (2, 3)), ema(Recipe()), past_self(Recipe()))))
WITHOUT_RANGE = {"teacher_model": "resnet8", "feature_exits": (1,), "schools": (2, 1), "grade_epochs": (1,),
                 "interval": 1.0, "distil_start": 1.0, "teacher_weights": "f" * 64, "student_weights": "f" * 64}


def test_same_fields_same_id_and_any_field_changes_it():
    base = online_kd(Recipe())
    assert base.run_id == online_kd(Recipe()).run_id and len(base.run_id) == 12
    changed = [replace(base, seed=1), replace(base, interval=1.5), replace(base, lr=0.1), replace(base, beta=0.0)]
    assert len({r.run_id for r in [base, *changed]}) == 5
    assert spaced(base, 1).run_id == spaced(base, 1.0).run_id


def test_json_and_back():
    recipe = preset(self_kd(Recipe(), interval=4.0), "released")
    assert from_dict(json.loads(recipe.to_json())) == recipe


def test_a_baseline_does_not_depend_on_distillation_fields():
    assert baseline(online_kd(Recipe(), interval=2.0, alpha=0.9, temperature=1.0)) == baseline(Recipe())


def other_value(field, value):
    """A value that the field allows, and not this one."""
    allowed = field.metadata["allowed"]
    if field.name in WITHOUT_RANGE:
        return WITHOUT_RANGE[field.name]
    if type(value) is bool:
        return not value
    if hasattr(allowed, "holds"):
        allowed = [type(value)(one) for one in (2, 1, 0.5) if allowed.holds(one)]
    return next(one for one in allowed if one != value)


@pytest.mark.parametrize("method", METHODS)
def test_a_field_that_a_method_does_not_read_is_refused(method):
    recipe, fields = OF_METHOD[method], Recipe.__dataclass_fields__
    assert recipe.method == method and foreign(method)
    for name, only in foreign(method).items():
        other = other_value(fields[name], only)
        with pytest.raises(InputError) as refused:
            replace(recipe, **{name: other})
        assert f"{name} = {other!r}" in str(refused.value) and method in str(refused.value), name


@pytest.mark.parametrize("base, change", [
    (Recipe(), dict(sam_rho=0.1)), (Recipe(optimizer="adamw"), dict(momentum=0.5)), (Recipe(), dict(warmup_epochs=5)),
    (Recipe(), dict(dropout_rule="sine")), (Recipe(dropout=0.5), dict(dropout_period=2.0)),
    (baseline(Recipe(), start="teacher"), dict(student_weights="f" * 64)),
    (online_kd(Recipe(), teacher_weights="f" * 64, teacher_learns=False), dict(teacher_lr=0.1)),
    (mutual(Recipe()), dict(inherit_weight=1.0)), (mutual(Recipe()), dict(distil_start=1.0)),
])
def test_a_field_that_is_read_beside_another_value_is_refused_without_it(base, change):
    with pytest.raises(InputError, match=f"{next(iter(change))} = "):
        replace(base, **change)


def test_a_baseline_drops_what_every_method_has_of_its_own():
    assert all(baseline(recipe) == Recipe() for recipe in OF_METHOD.values())


def test_published_records_are_read_and_keep_their_run_ids():
    lines = gzip.decompress(records.published_file("quick").read_bytes()).splitlines()
    stored = [json.loads(line)["run_id"] for line in lines]
    assert len(stored) > 100 and list(records.read_published("quick")) == stored


def test_removed_fields_at_their_old_default_are_dropped():
    values = json.loads(Recipe().to_json())
    assert from_dict(values | dict(accumulate=1)) == Recipe()
    with pytest.raises(InputError, match='"accumulate" is not a recipe field'):
        from_dict(values | dict(accumulate=2))


def test_released_differs_from_clean_in_its_switches_only_and_back():
    for method in (online_kd, self_kd):
        base = method(Recipe(), interval=1.5)
        released = preset(base, "released")
        changed = {name for name in vars(base) if getattr(base, name) != getattr(released, name)}
        assert changed <= released_fields(base.method, "A").keys() and "soft_loss" in changed
        assert preset(released, "clean") == replace(base, augment=released.augment)


def test_released_programs_treat_tiny_imagenet_alike():
    for method in (online_kd, self_kd):
        released = preset(method(Recipe(dataset="tiny-imagenet")), "released")
        assert (released.augment, released.normalise) == ("crop_flip", "imagenet")


def test_every_field_states_its_unit_its_source_and_its_methods():
    for row in recipes.describe():
        assert row["unit"] and row["source"], row["field"]
        assert row["methods"] == "all" or set(row["methods"].split(", ")) < set(METHODS), row["field"]


@pytest.mark.parametrize("change, message", [
    (dict(model="resnt18"), 'did you mean "resnet18"'),
    (dict(soft_loss="kll"), 'did you mean "kl"'),
    (dict(method="online"), 'did you mean "online_kd"'),
    (dict(epochs=0), "epochs = 0 is out of range"),
    (dict(interval=-81.0), "interval = -81"),
    (dict(interval=float("nan")), "interval = nan"),
    (dict(interval=81.0), "up to 80"),
    (dict(alpha=1.5), "from 0 to 1"),
    (dict(alpha=float("nan")), "alpha = nan"),
    (dict(lr=float("inf")), "lr = inf"),
    (dict(temperature=1e30), "up to 1e18"),
    (dict(temperature=0.0), "temperature = 0.0"),
    (dict(batch_size=1), "batch norm needs two"),
    (dict(epochs="many"), "is a str and must be a int"),
    (dict(epochs=True), "is a bool"),
    (dict(seed=-1), "seed = -1"),
    (dict(teacher_weights="abc"), "64 hexadecimal digits that keep_weights returned"),
    (dict(student_weights="F" * 64), "64 hexadecimal digits"),
])
def test_bad_values(change, message):
    with pytest.raises(InputError, match=message):
        replace(online_kd(Recipe()), **change)


@pytest.mark.parametrize("base, name, allowed, refused", [
    (online_kd(Recipe()), "interval", (0.0, 80.0), (80.5,)), (online_kd(Recipe()), "distil_start", (0.0, 79.5), (80.0,)),
    (online_kd(Recipe(), distil_start=2.0), "interval", (-2.0,), (-2.5,)),
    (Recipe(batch_size=9), "batch_norm_parts", (1, 4), (5,)),
    (self_kd(Recipe()), "feature_exits", ((), (1, 2, 3)), ((0,), (4,))),
    (education(Recipe(epochs=3), (2, 3)), "grade_epochs", ((), (1, 2), (2, 1)), ((0, 3), (1.5, 1.5), (1, 1), (1, 1, 1))),
    (education(Recipe(epochs=3), (2, 3)), "schools", ((), (1, 1, 1)), ((1, 1, 1, 1),)),
    (Recipe(lr_schedule="warmup_cosine"), "warmup_epochs", (0, 79), (80,)),
])
def test_the_ends_of_what_is_allowed(base, name, allowed, refused):
    for value in allowed:
        assert getattr(replace(base, **{name: value}), name) == value
    for value in refused:
        with pytest.raises(InputError, match=f"{name} = |too few|behind"):
            replace(base, **{name: value})


@pytest.mark.parametrize("given, stored", [
    ([range(2), range(2, 4)], ((0, 1), (2, 3))), (([0, 1], (3, 2)), ((0, 1), (3, 2))), ((np.int64(2), 2), (2, 2))])
def test_lists_and_tuples_of_whole_numbers_are_one_recipe(given, stored):
    made, same = education(Recipe(), given), education(Recipe(), stored)
    assert made == same and made.run_id == same.run_id and from_dict(json.loads(made.to_json())) == made
    assert {type(number) for number in np.concatenate([np.atleast_1d(part).astype(object) for part in made.schools])} == {int}


def test_the_order_of_exits_and_a_double_make_no_other_recipe():
    assert self_kd(Recipe(), feature_exits=[3, 1, 2, 1]).run_id == self_kd(Recipe()).run_id


@pytest.mark.parametrize("derive, name, values", [
    (self_kd, "feature_exits", (3, None, "12", (1.0,), (True,))), (lambda r, **given: education(r, (2, 3), **given), "grade_epochs", (3, None, "13")),
    (education, "schools", (3, None, "ab", ("ab",), {2: 3}, ((0.0, 1.0), (2.0,))))])
def test_what_is_no_tuple_of_whole_numbers_is_refused_by_its_name(derive, name, values):
    for value in values:
        with pytest.raises(InputError, match=f"^{name} = {re.escape(repr(value))} is no tuple of whole numbers"):
            derive(Recipe(), **{name: value})


@pytest.mark.parametrize("derive", (
    online_kd, offline_kd, self_kd, ema, past_self, transformer, recipes.offline, recipes.distinct, lambda r: spaced(r, 1),
    lambda r: recipes.behind(r, 1), lambda r: education(r, (2, 3)), lambda r: preset(r, "released"), lambda r: recipes.set_deviation(r, "A1")))
def test_what_is_no_recipe_is_refused(derive):
    with pytest.raises(InputError, match="^None is no recipe"):
        derive(None)


def test_a_change_of_another_type_is_refused_by_its_field():
    for call, told in ((lambda: recipes.offline(online_kd(Recipe()), epochs="x"), "epochs = 'x'"), (lambda: transformer(Recipe(), model=3), "model = 3")):
        with pytest.raises(InputError, match=told):
            call()


def test_contradictions_and_unknown_names():
    with pytest.raises(InputError, match="exits out of 1, 2 and 3"):
        self_kd(Recipe(), feature_exits=(4,))
    with pytest.raises(InputError, match="Offline KD is one interval"):
        replace(offline_kd(Recipe(epochs=10)), epochs=20)
    with pytest.raises(InputError, match='did you mean "released"'):
        preset(online_kd(Recipe()), "relased")
    with pytest.raises(InputError, match="not for baseline"):
        preset(Recipe(), "released")
    for call in (Recipe, lambda **misspelt: online_kd(Recipe(), **misspelt), lambda **misspelt: replace(Recipe(), **misspelt)):
        with pytest.raises(InputError, match='"temprature" is not a recipe field; did you mean "temperature"'):
            call(temprature=1.0)
    with pytest.raises(InputError, match='"temprature" is not a recipe field; did you mean "temperature"'):
        from_dict(json.loads(Recipe().to_json()) | {"temprature": 1})
    with pytest.raises(InputError, match="version 0 of the recipe"):
        from_dict(json.loads(Recipe().to_json()) | {"version": 0})


def test_a_teachers_own_run_has_its_network_and_its_rate():
    small, own = Recipe(model="resnet8", width=8), dict(teacher_model="resnet20", teacher_width=16)
    assert teacher_of(online_kd(small)) == baseline(small, start="teacher")
    large = baseline(replace(small, model="resnet20", width=16), start="teacher")
    assert teacher_of(online_kd(small, **own)) == large
    assert teacher_of(online_kd(small, **own, teacher_lr=0.2)) == replace(large, lr=0.2)
    for given, model, width in ((own, "resnet20", 16), ({}, "resnet8", 8)):
        teachers = teacher_of(education(small, (2, 3), **given))
        assert (teachers.model, teachers.width, teachers.growth) == (model, width, "none")


def test_the_relative_cost_of_a_batch_is_in_passes():
    own = teacher_of(OF_METHOD["online_kd"])
    assert [forward_passes(recipe, [recipe]) for recipe in (*OF_METHOD.values(), own)] == [3, 4, 4, 9, 4, 8, 4, 1, 4, 3]
    assert forward_passes(own, [own, OF_METHOD["online_kd"]]) == 0


def test_one_method_has_one_network():
    assert [name for name, recipe in OF_METHOD.items() if one_network(recipe)] == ["self_kd"]


def test_a_transformers_training_keeps_a_transformer():
    assert transformer(Recipe(model="pvt_tiny")).model == "pvt_tiny"
    assert transformer(Recipe()).model == "timm/deit_tiny_patch16_224"


def test_offline_kd_is_the_longest_interval():
    assert offline_kd(Recipe(epochs=7)).interval == 7.0
