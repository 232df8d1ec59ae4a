"""Exercises of notebook 05, Spaced KD."""

import torch

from ...schedule import spaced_schedule
from ..exercises import Exercise, agrees, exactly, number

def _constant(total: int, lead: int) -> list[tuple[str, int]]:
    """Schedule a constant lead; an epoch has one batch here, so that the lead is the interval."""
    return [(e.kind, e.index) for e in spaced_schedule(total, 1, lead, rule="constant") if e.kind != "epoch"]


def _same_turns(function) -> str:
    cases = [(4, 2), (5, 1), (6, 3), (3, 3), (7, 5)]
    return agrees(cases, _constant)(lambda total, lead: [tuple(turn) for turn in function(total, lead)])


def _moves_what_rests(step) -> str:
    teacher, student, x = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2), torch.ones(4, 3)
    both = torch.nn.ModuleList([teacher, student])
    optimizer = torch.optim.SGD(both.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    teacher(x).square().sum().backward()
    optimizer.step()  # the teacher has learned, and has momentum
    before = [net.weight.detach().clone() for net in both]
    step(optimizer, student(x).square().sum())
    rested, stayed = (torch.equal(net.weight, old) for net, old in zip(both, before))
    if stayed:
        return "the student, whose loss it is, does not move"
    return f"the resting teacher's first weight stays {before[0][0, 0]:.3f}, expected is that it moves" * rested


EXERCISES = {
    "05.1": Exercise("predict", lambda answer: exactly(("-", "+"))(tuple(answer)), (
        "read each theory as a sentence about the two teachers: which of them has more of what helps?",
        "for ahead helps, compare how much the two know. For frozen helps, compare which one stands still while the "
        "student learns.",
        "a teacher behind knows less than online KD's, so one theory says -; it stands still for a block, which online "
        "KD's never does, so the other says +.")),
    "05.2": Exercise("compute", number((586 + 1) / 2), (
        "how many batches does a block hold?",
        "I = 391 x 1.5, rounded down; within a block the lead falls from I to 1.",
        "I = 586, and the mean of 586, 585, ..., 1 is (586 + 1) / 2.")),
    "05.3": Exercise("change", _same_turns, (
        "one loop over the teacher's batches is enough; the student follows at a fixed distance.",
        "after the teacher's batch i the student may learn batch i - lead + 1, if there is one.",
        "after the loop the student still lacks its last lead - 1 batches: range(total - lead + 1, total).")),
    "05.4": Exercise("break", _moves_what_rests, (
        "a missing gradient and a gradient of zero are not the same to an optimizer.",
        "with a gradient of zero SGD still applies its momentum and its weight decay.",
        "look at the argument set_to_none of zero_grad.")),
    "05.5": Exercise("explain", exactly("b"), (
        "write down the sign that each theory gives to ahead minus behind.",
        "the interval lies below zero. It contradicts a predicted +, and also a predicted 0.",
        "the signs are +, 0 and -: which of the three can live with an interval below zero?")),
}
