"""Exercises of notebook 00, Start here."""

from ... import recipes
from ...lab import grids
from ..exercises import Exercise, exactly

EXERCISES = {
    "00.1": Exercise("compute", lambda a: exactly(len(grids.grid("quick", "05_spaced_kd")))(a),
                     ("arms x settings x seeds; `skd.grid` gives the rows.",) * 3, 5),
    "00.2": Exercise("compute", lambda a: exactly(recipes.spaced(recipes.online_kd(recipes.Recipe()), 1.5))(a),
                     ("start from skd.online_kd(skd.Recipe()) and use skd.spaced.",) * 3, "spaced"),
    "00.3": Exercise("compute", lambda a: exactly("seed")(a),
                     ("one field decides initial weights, order and augmentation.",) * 3, "lr"),
}
