"""Exercises of notebook 14, The register of claims."""

import numpy as np

from ...statistics import holm, mean_interval
from ..exercises import Exercise, agrees, exactly

_P = [0.020, 0.011, 0.300]


def _cheats(publish) -> str:
    """Whether a choice among comparisons of nothing makes headlines of them."""
    studies = np.random.default_rng(0).normal(size=(200, 20, 5)).tolist()
    headlines = np.mean([mean_interval(study[publish(study)]).p < 0.05 for study in studies])
    return "" if headlines > 0.5 else f"only {headlines:.0%} of what you published has p < 0.05"


EXERCISES = {
    "14.1": Exercise("predict", exactly("c"), (
        "one interval holds the truth with a chance of 0.95; how likely do two of them both hold it?",
        "the chance that all twenty hold the truth is 0.95 times itself, twenty times.",
        "1 - 0.95 ** 20; run it and see which of the three it is near.")),
    "14.2": Exercise("compute", lambda a: "" if np.allclose(a, holm(_P)) else f"{a} are not the three", (
        "sort them first, but give them back in the order of the question.",
        "the smallest times 3, the next times 2, the last times 1; then look for one that falls.",
        "0.011 * 3 comes first; 0.020 * 2 follows; is the last one larger than both?")),
    "14.3": Exercise("explain", exactly("b"), (
        "the rule asks about zero first.",
        "an interval above zero supports a claim, however small the gain is.",
        "0.1 is above zero, and 0.4 is below 0.5: the first decides the word, the second the size.")),
    "14.4": Exercise("change", agrees([([0.010, 0.040, 0.030],), ([0.5, 0.2],), ([0.049],)],
                                      lambda p: [min(len(p) * value, 1.0) for value in p]), (
        "Holm's factors fall from 3 to 1; Bonferroni's do not.",
        "every p-value is multiplied by len(p_values), and none may exceed 1.",
        "return [min(len(p_values) * p, 1.0) for p in p_values]")),
    "14.5": Exercise("break", _cheats, (
        "you know which of the twenty looks best: you have all the numbers.",
        "compute the p-value of each list, and publish the one that has the smallest.",
        "min(range(len(studies)), key=lambda k: skd.mean_interval(studies[k]).p)")),
}
