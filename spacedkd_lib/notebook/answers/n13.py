"""Exercises of notebook 13, Spacing beyond distillation."""

import math

import torch
from torch import nn

from ...methods import dropout_ema
from ...recipes import Recipe
from ..exercises import Exercise, agrees, exactly, number


def _counted_rate(t: int, p: float, S: int, L: int, tests: int) -> float:
    recipe = Recipe(dropout=p, dropout_rule="sine", dropout_period=(S + 0.5) / L, dropout_at_test="on_counted")
    return dropout_ema.dropout_rate(recipe, dropout_ema.counted(recipe, t, L, tests), L)


def _follows_at_once(answer) -> str:
    network = nn.Linear(2, 1)
    start = network.weight.clone()
    average = answer(network)
    if average.weight.shape != start.shape or not torch.equal(average.weight, start):
        return "at first it has other weights than the network"
    with torch.no_grad():
        network.weight.add_(1.0)
    if torch.equal(average.weight, network.weight):
        return ""
    return (f"after an update the network's first weight is {network.weight[0, 0]:.3f} and yours "
            f"{average.weight[0, 0]:.3f}, expected is the same")


EXERCISES = {
    "13.1": Exercise("predict", exactly("farther"),
                     ("how many steps does an average with a = 0.9 remember, whenever they come?",
                      "about ten steps; how many updates are those, if a step comes at every tenth?",
                      "ten steps are ten updates for the one and a hundred for the other.")),
    "13.2": Exercise("compute", number(0.3 * math.pi / 2),
                     ("the mean of |sin| over a period is known from above.",
                      "peak times 2 / pi is to be 0.3.", "solve for the peak: 0.3 * pi / 2.")),
    "13.3": Exercise("change", agrees([(100, 0.5, 391, 391, 79), (391, 0.5, 391, 391, 79), (1000, 0.3, 500, 391, 79)],
                                      _counted_rate),
                     ("how many epochs are over at update t?",
                      "t // L epochs are over, each with `tests` batches more.",
                      "put t + tests * (t // L) in the place of t.")),
    "13.4": Exercise("break", _follows_at_once,
                     ("which word makes a second network, and what if it is left out?",
                      "`copy.deepcopy(network)` is right; two names for one network are wrong.",
                      "the shortest one returns its argument.")),
    "13.5": Exercise("explain", exactly("b"),
                     ("what differs between spaced EMA and EMA with the same a, besides the spacing?",
                      "the control has the same memory; what does a difference near zero to it say?",
                      "memory differs in the comparison that shows a gain, and not in the one that shows none.")),
}
