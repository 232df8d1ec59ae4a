"""Exercises of notebook 07, Robustness."""

import math

import torch

from ...models.scoring import scores
from ..exercises import Exercise, agrees, exactly, number


_CASES = [([0.2, 0.99, 0.0], [0.3, 2.0, -1.0], 0.1), ([0.5, 0.5], [-3.0, 4.0], 0.25)]


def _step(pixels, slopes, r):
    length = math.hypot(*slopes)
    return [min(max(x + r * g / length, 0.0), 1.0) for x, g in zip(pixels, slopes)]


def _useless(answers) -> str:
    if len(answers) != 10 or not all(0 < confidence < 1 for confidence, _ in answers):
        return "give ten pairs, each with a confidence between 0 and 1"
    if sum(bool(right) for _, right in answers) > 5:
        return "more than half are right, so this network is of some use"
    confidence = torch.tensor([float(confidence) for confidence, _ in answers], dtype=torch.float64)
    others = ((1 - confidence) / 99).log()[:, None].expand(-1, 99)  # so many classes that the first has the most
    logits = torch.cat([confidence.log()[:, None], others], dim=1)
    if not (logits[:, 0] > logits[:, 1]).all():
        return "a confidence is the largest probability of all classes: give larger ones"
    found = scores(logits, torch.tensor([int(not right) for _, right in answers]), bins=10)["ece"]
    return f"the ECE is {found:.1f}%" if found >= 0.1 else ""


EXERCISES = {
    "07.1": Exercise("predict", exactly("never higher"), (
        "Which pictures does this PGD meet first?",
        "It keeps the worst picture that it meets, and FGSM's is among them.",
        "A picture that FGSM breaks is broken for PGD too. Must PGD break one more?")),
    "07.2": Exercise("compute", number(100 * 50 / 80), (
        "How many pictures does the network still read under attack?",
        "It is still right on 80 - 30 pictures. Compare them with those that it read before.",
        "Divide 50 by 80.")),
    "07.3": Exercise("change", agrees(_CASES, _step), (
        "Two lines: the length of the slopes, then each pixel's move.",
        "The length is the root of the sum of squares, math.hypot(*slopes).",
        "Each pixel becomes min(max(x + r * g / length, 0), 1).")),
    "07.4": Exercise("break", _useless, (
        "When is a weather forecast of 50% for every day well calibrated?",
        "Put all ten answers into one bin. Its confidence must be its share of right answers.",
        "Say 0.5 ten times, and be right five times.")),
    "07.5": Exercise("explain", exactly("b"), (
        "Compute for both what is kept: 40 of 50, 56 of 80.",
        "A keeps 80%, B keeps 70%. Who reads more worn pictures?",
        "Two questions, two answers: what is kept speaks of the loss, accuracy of the use.")),
}
