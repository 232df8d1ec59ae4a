"""Arithmetic of spacing inside one network: the rate of spaced dropout, the steps of a spaced average. No torch here.

t is an update's batch number, from 0. S is the dropout's period in batches, L the batches of an epoch, K the updates
between two steps of the average. Taught in notebooks/13_spacing_beyond_kd.ipynb.
"""

from __future__ import annotations

import math

from ..errors import InputError, least_interval
from ..recipes import Recipe

TEST_BATCH = 128  # images (released programs); only where they are counted, or scored by their own statistics


def period(recipe: Recipe, batches_per_epoch: int) -> int:
    """Return S = int(dropout_period * L), in batches.

    Raises:
        InputError: less than one batch.
    """
    batches = int(recipe.dropout_period * batches_per_epoch)
    if batches < 1:
        raise InputError(f"dropout_period = {recipe.dropout_period:g} epochs is less than one of the "
                         f"{batches_per_epoch} batches of an epoch: give at least {least_interval(batches_per_epoch)}.")
    return batches


def dropout_rate(recipe: Recipe, t: int, batches_per_epoch: int) -> float:
    """Return the rate at batch t: constant, or times |sin(pi t / S)|; each site draws a share under the random rule.

    >>> round(dropout_rate(Recipe(dropout=0.5, dropout_rule="sine"), t=100, batches_per_epoch=200), 6)
    0.5
    """
    if recipe.dropout_rule != "sine":
        return recipe.dropout
    return recipe.dropout * abs(math.sin(math.pi * t / period(recipe, batches_per_epoch)))


def counted(recipe: Recipe, updates: int, batches_per_epoch: int, test_batches: int) -> int:
    """Return t after so many updates; where test batches count (B2), it includes one test of each past epoch.

    >>> counted(Recipe(dropout=0.5, dropout_rule="sine", dropout_at_test="on_counted"), 400, 391, 79)
    479
    """
    tests = updates // batches_per_epoch if recipe.dropout_at_test == "on_counted" else 0
    return updates + tests * test_batches


def number_at_test(recipe: Recipe, epoch: int, batch: int, batches_per_epoch: int, test_batches: int) -> int:
    """Return t at a batch, from 0, of the test after epoch 1, 2, ...; if tests do not count, the next update's t."""
    if recipe.dropout_at_test != "on_counted":
        return epoch * batches_per_epoch
    return epoch * batches_per_epoch + (epoch - 1) * test_batches + batch


def average_step(decay: float, debias: bool, step: int) -> float:
    """Return the share that an exponential average moves to the present network at step 1, 2, ...: 1 - a.

    `debias` removes the bias to the start: the share is (1 - a) / (1 - a^step), so the first step copies.

    >>> average_step(0.99, True, 1), round(average_step(0.99, False, 1), 6)
    (1.0, 0.01)
    """
    return (1 - decay) / (1 - decay**step) if debias else 1 - decay


def average_weights(decay: float, debias: bool, steps: int) -> list[float]:
    """Return each network's weight in the average: the one at initialisation, then steps 1, 2, ...; their sum is 1.

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
    """Return a^(1/K): stepped at every update, it forgets as fast as decay a stepped once in K = `updates`.

    >>> round(equal_horizon(0.99, 39), 6)
    0.999742
    """
    return decay ** (1 / updates)
