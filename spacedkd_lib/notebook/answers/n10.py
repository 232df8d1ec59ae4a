"""Exercises of notebook 10, IE-KD."""

import math

import torch

from ...models.resnet import ResNet
from ..exercises import Exercise, agrees, exactly, number


def _unit(factor) -> list[float]:
    return [v / math.hypot(*factor) for v in factor]


def _distance(mine, theirs, p) -> float:
    return (sum(abs(a - b) ** p for a, b in zip(_unit(mine), _unit(theirs))) / len(mine)) ** (1 / p)


def _asks_and_changes(function) -> str:
    torch.manual_seed(0)
    net, x = ResNet("resnet8", 10, 1, 4), torch.randn(4, 1, 8, 8)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    logits = function(net, x)
    if getattr(logits, "shape", None) != (4, 10):
        return f"it returns {type(logits).__name__}, and not the logits of 4 pictures, `net(x).logits`"
    changed = [name for name, value in net.state_dict().items() if not torch.equal(value, before[name])]
    return "" if changed else "the network is as it was before"


EXERCISES = {
    "10.1": Exercise("predict", exactly("lower"), (
        "What is the encoder trained to do, and who else could do it?",
        "The distance depends on the encoder's weights as much as on the student's map.",
        "A larger distance between two directions is a wider angle between them.")),
    "10.2": Exercise("explain", exactly("b"), (
        "The two ways to ask differ in one thing: which statistics does the peer use?",
        "The peers learn in the same way in both. Only what they hear differs.",
        "What is there in one way of asking alone, and vanishes in the other, is a matter of asking.")),
    "10.3": Exercise("compute", number(500 * (512 / 2048) ** 0.5), (
        "The pull of a mean over D elements shrinks with D; how fast?",
        "It shrinks like one over the root of D, so the weight must grow like that root.",
        "Multiply 500 by the root of 512 / 2048, which is a half.")),
    "10.4": Exercise("change", agrees([([3.0, 4.0], [0.0, 2.0], 1), ([3.0, 4.0], [0.0, 2.0], 2),
                                       ([1.0, 1.0, 1.0], [-2.0, 0.0, 2.0], 2), ([5.0], [2.0], 3)], _distance), (
        "Divide by lengths first, as in the cell of three numbers.",
        "Only the two last steps change: the power of each difference, and the root of the mean.",
        "With the two unit lists u and v: (sum(abs(a - b) ** p ...) / len(u)) ** (1 / p).")),
    "10.5": Exercise("break", _asks_and_changes, (
        "Which numbers of a network move in a forward pass, without any gradient?",
        "Batch norm keeps running statistics. In which mode does it update them?",
        "Put the network into train mode, then call it: net.train()(x).logits.")),
}
