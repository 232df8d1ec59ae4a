"""What a record keeps of the test pictures: the headline network's classes; and how often two networks agree."""

from dataclasses import replace

import pytest
import torch

from spacedkd_lib.recipes import (
    Recipe, baseline, education, ema, ie_kd, mutual, offline_kd, online_kd, preset, self_kd, spaced, teacher_of,
)
from spacedkd_lib.store.records import Record
from spacedkd_lib.training.train import sweep, train

BASE = Recipe(dataset="toy", model="resnet8", width=4, epochs=2, batch_size=8, lr=0.05, augment="crop_flip")
METHODS = {
    "baseline": baseline(BASE), "online": spaced(online_kd(BASE), 1.0), "mutual": mutual(BASE), "factors": ie_kd(BASE),
    "self": self_kd(replace(BASE, model="resnet10")), "average": ema(BASE, ema_decay=0.5),
    "released average": ema(BASE, ema_decay=0.5, ema_statistics="batch"),
    "school": education(replace(BASE, epochs=3, batch_size=4), (1, 1, 1)),
}


def percent(hits):
    return 100 * torch.as_tensor(hits).float().mean().item()


def predicted(recipe, outcome):
    return torch.from_numpy(Record(recipe, *outcome[:3], outcome[4]).predicted())


@pytest.mark.parametrize("name", METHODS)
def test_predictions_give_the_accuracy(toy, name):
    recipe = METHODS[name]
    outcome = train(recipe, toy)
    assert percent(predicted(recipe, outcome) == toy.test_labels) == outcome[1]["test_accuracy"]
    assert ("test_teacher_agreement" in outcome[1]) == (name not in ("baseline", "self", "school"))


def test_agreement_is_that_with_the_teachers_own_run(toy):
    """Its predictions are in the record of the baseline that starts as the teacher; and for several seeds at once."""
    students = [online_kd(BASE), spaced(online_kd(BASE), 1.0), offline_kd(BASE)]
    recipes = [replace(recipe, seed=seed) for seed in (0, 1) for recipe in (teacher_of(students[0]), *students)]
    for group in (recipes[:4], recipes):
        found = dict(zip(group, sweep(group, toy)))
        for recipe in group:
            mine, theirs = (predicted(of, found[of]) for of in (recipe, teacher_of(recipe) or recipe))
            if recipe.method != "baseline":
                assert found[recipe][1]["test_teacher_agreement"] == percent(mine == theirs)
            assert percent(mine == toy.test_labels) == found[recipe][1]["test_accuracy"]


def test_accuracy_of_the_teacher_that_was_asked(toy):
    """A finished teacher answers, on plain pictures, as well as on the whole training set."""
    plain = replace(BASE, augment="none")
    whole = replace(toy, test_images=toy.train_images, test_labels=toy.train_labels)
    rows, *_ = train(offline_kd(plain, teacher_mode="eval"), whole)
    assert rows[-1]["asked_train_accuracy"] == pytest.approx(rows[-1]["teacher_test_accuracy"], rel=1e-6)
    asked = [online_kd(plain), preset(online_kd(plain), "released"), ie_kd(plain)]
    for recipe in (*asked, online_kd(plain, alpha=0.0, beta=0.0), baseline(plain)):
        assert ("asked_train_accuracy" in train(recipe, toy)[0][0]) == (recipe in asked), recipe.in_words()
