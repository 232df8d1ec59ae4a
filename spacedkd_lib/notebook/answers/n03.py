"""Exercises of notebook 03, Online KD."""

import torch

from ...methods.build import recipe_schedule
from ...methods.online_kd import ask
from ...models.resnet import ResNet
from ...recipes import Recipe, offline_kd
from ..exercises import Exercise, exactly, number


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


def _disturbs(other) -> str:
    """Test that another batch with the same first picture changes a teacher's answer about that picture."""
    torch.manual_seed(0)
    net, x = ResNet("resnet8", classes=5, channels=1, width=4), torch.randn(8, 1, 8, 8)
    changed = other(x.clone())
    if changed.shape != x.shape or not torch.equal(changed[0], x[0]):
        return "the batch has another size or another first picture"
    with torch.no_grad():
        said, now = (ask(net, batch, "batch").logits[0] for batch in (x, changed))
    return (f"of class 0 the teacher gives the first picture {said[0]:.3f} in one batch and {now[0]:.3f} in the "
            "other, expected are two answers") * torch.allclose(said, now, atol=1e-3)


EXERCISES = {
    "03.1": Exercise("compute", number((0.321 - 0.665) / 3),
                     ("The formula above has three parts: p, q and T.",
                      "The student gives the cat 0.321 and the teacher gives it 0.665.",
                      "Subtract the teacher's share from the student's, and divide by T.")),
    "03.2": Exercise("predict", exactly("more"),
                     ("Which part of the teacher changes during those 20 batches?",
                      "The running statistics belonged to weights of ten updates ago. Now the weights rest.",
                      "After 20 batches 0.9 ** 20 = 12% of the old mean are left, so the answers fit the weights.")),
    "03.3": Exercise("change", _is_offline,
                     ("Who must be done before the other begins?",
                      "Two loops, one after the other, each over all batches.",
                      "for i in range(total): teach(i). Then the same loop with learn(i).")),
    "03.4": Exercise("break", _disturbs,
                     ("What does batch norm take from the batch, and what would change it?",
                      "Mean and variance do not depend on the order of the pictures. They depend on their values.",
                      "Keep x[:1] and multiply all others, x[1:], by 3; torch.cat joins the two.")),
    "03.5": Exercise("explain", exactly("b"),
                     ("Two things differ between the two arms. Which are they?",
                      "When the teacher is trained, and how well its running statistics fit when it is asked.",
                      "The comparison cannot tell the two apart, in either direction.")),
}
