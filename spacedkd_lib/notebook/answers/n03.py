"""Exercises of notebook 03, Online KD."""

import torch

from ...methods.build import recipe_schedule
from ...methods.losses import kl
from ...recipes import Recipe, offline_kd
from ..exercises import Exercise, exactly


def _is_offline(loop) -> str:
    """Test that a loop makes the updates of offline KD in their order."""
    for total in (3, 5):
        made = []
        loop(total, lambda i: made.append(("teach", i)), lambda i: made.append(("learn", i)))
        events = recipe_schedule(offline_kd(Recipe(epochs=1)), total)
        expected = [(event.kind, event.index) for event in events if event.kind != "epoch"]
        if made != expected:
            return f"for {total} batches yours makes {made}, expected is {expected}"
    return ""


def _leaks(loss) -> str:
    """Test that a soft loss is right, and has a gradient for the teacher's logits."""
    torch.manual_seed(0)
    z_s, z_t = (torch.randn(4, 5, requires_grad=True) for _ in range(2))
    value = loss(z_s, z_t, 3.0)
    if not torch.isclose(value, kl(z_s, z_t, 3.0)):
        return f"its value is {value.item():.4f}, expected is {kl(z_s, z_t, 3.0).item():.4f}"
    leak, = torch.autograd.grad(value, z_t, allow_unused=True)
    return "" if leak is not None and leak.any() else "no gradient reaches the teacher, so nothing is broken"


def _online(total, teach, learn):
    for i in range(total):
        teach(i)
        learn(i)


EXERCISES = {
    "03.1": Exercise("predict", exactly("c"),
                     ("There are two reasons why the gradient shrinks.",
                      "The chain rule gives 1/T. At high T the difference p - q gives another 1/T.",
                      "(1/2) * (1/2)."), "b"),
    "03.2": Exercise("predict", exactly("more"),
                     ("Which part of the teacher changes during those 20 batches?",
                      "The running statistics belonged to weights of ten updates ago. Now the weights rest.",
                      "After 20 batches 0.9 ** 20 = 12% of the old mean are left, so the answers fit the weights."),
                     "equally"),
    "03.3": Exercise("change", _is_offline,
                     ("Who must be done before the other begins?",
                      "Two loops, one after the other, each over all batches.",
                      "for i in range(total): teach(i). Then the same loop with learn(i)."), _online),
    "03.4": Exercise("break", _leaks,
                     ("Where does the library cut the trace? Here nothing may cut it.",
                      "Write `kl` of this notebook, without detach and without no_grad.",
                      "Take log_p and log_q by F.log_softmax; (log_q.exp() * (log_q - log_p)).sum() / len(z_s)."),
                     kl),
    "03.5": Exercise("explain", exactly("b"),
                     ("Two things differ between the two arms. Which are they?",
                      "When the teacher is trained, and how well its running statistics fit when it is asked.",
                      "The comparison cannot tell the two apart, in either direction."), "a"),
}
