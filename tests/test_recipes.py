"""Recipes: identity, presets, and one clear sentence for every bad value."""

import json
from dataclasses import replace

import pytest

from spacedkd_lib import recipes
from spacedkd_lib.errors import InputError
from spacedkd_lib.recipes import Recipe, baseline, from_dict, offline_kd, online_kd, preset, self_kd, spaced


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


def test_released_differs_from_clean_in_its_switches_only_and_back():
    for method in (online_kd, self_kd):
        base = method(Recipe(), interval=1.5)
        released = preset(base, "released")
        changed = {name for name in vars(base) if getattr(base, name) != getattr(released, name)}
        assert changed <= set(recipes.RELEASED[base.method]) and "soft_loss" in changed
        assert preset(released, "clean") == replace(base, augment=released.augment)


def test_released_programs_treat_tiny_imagenet_alike():
    for method in (online_kd, self_kd):
        released = preset(method(Recipe(dataset="tiny-imagenet")), "released")
        assert (released.augment, released.normalise) == ("crop_flip", "imagenet")


def test_every_field_states_its_unit_and_its_source():
    for row in recipes.describe():
        assert row["unit"] and row["source"], row["field"]


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
    (dict(temperature=0.0), "temperature = 0.0"),
    (dict(batch_size=1), "batch norm needs two"),
    (dict(epochs="many"), "is a str and must be a int"),
    (dict(epochs=True), "is a bool"),
    (dict(feature_exits=(4,)), "exits out of 1, 2 and 3"),
    (dict(seed=-1), "seed = -1"),
])
def test_bad_values(change, message):
    with pytest.raises(InputError, match=message):
        replace(online_kd(Recipe()), **change)


def test_contradictions_and_unknown_names():
    with pytest.raises(InputError, match="Offline KD is one interval"):
        replace(offline_kd(Recipe(epochs=10)), epochs=20)
    with pytest.raises(InputError, match="A baseline has no teacher"):
        Recipe(interval=1.0)
    with pytest.raises(InputError, match='did you mean "released"'):
        preset(online_kd(Recipe()), "relased")
    with pytest.raises(InputError, match="not for baseline"):
        preset(Recipe(), "released")
    with pytest.raises(InputError, match='"temprature" is not a recipe field; did you mean "temperature"'):
        from_dict(json.loads(Recipe().to_json()) | {"temprature": 1})
    with pytest.raises(InputError, match="version 0 of the recipe"):
        from_dict(json.loads(Recipe().to_json()) | {"version": 0})


def test_offline_kd_is_the_longest_interval():
    assert offline_kd(Recipe(epochs=7)).interval == 7.0
