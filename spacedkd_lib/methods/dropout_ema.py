"""Spacing inside one network, as plain arithmetic: the rate of spaced dropout, and the steps of a spaced average.

t counts batches: an update's number, from 0. S is the period of the dropout in batches, L the batches of an epoch, K
the updates of a network between two steps of its average. No torch here.
Taught in notebooks/13_spacing_beyond_kd.ipynb.
"""

from __future__ import annotations

import math

from ..errors import InputError
from ..recipes import Recipe

TEST_BATCH = 128  # images (released programs); only where they are counted, or scored by their own statistics


def period(recipe: Recipe, batches_per_epoch: int) -> int:
    """S = int(dropout_period * L), in batches.

    Raises:
        InputError: less than one batch.
    """
    batches = int(recipe.dropout_period * batches_per_epoch)
    if batches < 1:
        raise InputError(f"dropout_period = {recipe.dropout_period:g} epochs is less than one of the "
                         f"{batches_per_epoch} batches of an epoch: give at least {1 / batches_per_epoch:.3g}.")
    return batches


def dropout_rate(recipe: Recipe, t: int, batches_per_epoch: int) -> float:
    """The rate at batch t: constant, or the sine |sin(pi t / S)| of it. Of the random rule it is the largest rate, of
    which each site draws a share by itself.

    >>> round(dropout_rate(Recipe(dropout=0.5, dropout_rule="sine"), t=100, batches_per_epoch=200), 6)
    0.5
    """
    if recipe.dropout_rule != "sine":
        return recipe.dropout
    return recipe.dropout * abs(math.sin(math.pi * t / period(recipe, batches_per_epoch)))


def counted(recipe: Recipe, updates: int, batches_per_epoch: int, test_batches: int) -> int:
    """t after so many updates: themselves, or, where test batches count too (B2), those of the epochs before as well,
    one test an epoch.

    >>> counted(Recipe(dropout=0.5, dropout_rule="sine", dropout_at_test="on_counted"), 400, 391, 79)
    479
    """
    tests = updates // batches_per_epoch if recipe.dropout_at_test == "on_counted" else 0
    return updates + tests * test_batches


def number_at_test(recipe: Recipe, epoch: int, batch: int, batches_per_epoch: int, test_batches: int) -> int:
    """t at a batch, from 0, of the test that follows epoch 1, 2, ...; where test batches do not count, all of them are
    at the number of the next update."""
    if recipe.dropout_at_test != "on_counted":
        return epoch * batches_per_epoch
    return epoch * batches_per_epoch + (epoch - 1) * test_batches + batch


def average_step(decay: float, debias: bool, step: int) -> float:
    """How far step 1, 2, ... of an exponential average goes towards the present network: 1 - a, or, without the bias
    to where it started, (1 - a) / (1 - a^step): its first step is then a copy.

    >>> average_step(0.99, True, 1), round(average_step(0.99, False, 1), 6)
    (1.0, 0.01)
    """
    return (1 - decay) / (1 - decay**step) if debias else 1 - decay


def average_weights(decay: float, debias: bool, steps: int) -> list[float]:
    """What each network counts in the average after some steps: first the one at initialisation, then those of step 1,
    2, .... They add up to 1.

    >>> average_weights(0.5, False, 2), [round(weight, 3) for weight in average_weights(0.5, True, 2)]
    ([0.25, 0.25, 0.5], [0.0, 0.333, 0.667])
    """
    weights, left = [], 1.0
    for step in range(steps, 0, -1):  # each later step leaves 1 - its share
        share = average_step(decay, debias, step)
        weights.append(left * share)
        left *= 1 - share
    return [left, *reversed(weights)]


def equal_horizon(decay: float, updates: int) -> float:
    """The decay of an average that steps at every update and forgets as fast as one of `decay` that steps once in
    `updates`: a^(1/K).

    >>> round(equal_horizon(0.99, 39), 6)
    0.999742
    """
    return decay ** (1 / updates)
