"""Exercises of notebook 02, Baselines."""

from dataclasses import replace

import torch
import torch.nn.functional as F

from ...models.layers import Outputs
from ...recipes import Recipe
from ...training.rates import learning_rate
from ..exercises import Exercise, agrees, exactly, number

STEPS = replace(Recipe(), lr=0.1, lr_schedule="multistep")


class _Line(torch.nn.Linear):
    def forward(self, x):
        return Outputs(super().forward(x), x)


def _forgets_to_zero(update) -> str:
    """Test that the second step follows the sum of both batches' gradients."""
    torch.manual_seed(0)
    net, batches = _Line(4, 3), [(torch.randn(5, 4), torch.randint(3, (5,))) for _ in range(2)]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    gradients = []
    for x, y in batches:
        gradients.append(torch.autograd.grad(F.cross_entropy(net(x).logits, y), net.weight)[0])
        before = net.weight.detach().clone()
        update(net, optimizer, x, y)
    step, want = (before - net.weight.detach()) / 0.1, sum(gradients)
    if torch.allclose(step, want, atol=1e-6):
        return ""
    return (f"for two batches with the gradients {gradients[0][0, 0]:.3f} and {gradients[1][0, 0]:.3f} its second step "
            f"follows {step[0, 0]:.3f}, expected is {want[0, 0]:.3f}")


EXERCISES = {
    "02.1": Exercise("predict", exactly("c"),
                     ("The factor 4.303 is more than twice 1.96, so the difference is not small.",
                      "An interval of less than half the right width misses far more often than once in twenty.",
                      "For two degrees of freedom the share is t / sqrt(t^2 + 2); put in t = 1.96.")),
    "02.2": Exercise("compute", number(2.776 * 2.5 ** 0.5 / 5 ** 0.5),
                     ("Three steps: the standard deviation, the standard error of the mean, then t of them.",
                      "The squared deviations from 3 sum to 10. Divide by n - 1 = 4, then take the root.",
                      "2.776 * sqrt(2.5) / sqrt(5).")),
    "02.3": Exercise("change", agrees([(i, 100) for i in (0, 29, 30, 59, 60, 79, 80, 99)] + [(45, 150), (44, 150)],
                                      lambda i, total: learning_rate(STEPS, i, total)),
                     ("How many of the three places has update i passed?",
                      "Each place that is passed multiplies the rate by 0.2. Passed means i >= share * total.",
                      "0.1 * 0.2 ** sum(10 * i >= tenths * total for tenths in (3, 6, 8)).")),
    "02.4": Exercise("break", _forgets_to_zero,
                     ("Copy `update`, and leave one line out.",
                      "backward() adds to what stands in p.grad. Who clears it?",
                      "loss = F.cross_entropy(net(x).logits, y); loss.backward(); optimizer.step().")),
    "02.5": Exercise("explain", exactly("c"),
                     ("The interval is a range of true differences that the runs agree with.",
                      "Which of the sentences claims neither a difference nor its absence?",
                      "Zero lies inside, so (a) and (b) say too much. (d) speaks of the chance of a hypothesis, "
                      "which the interval does not give.")),
}
