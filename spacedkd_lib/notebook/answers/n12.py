"""Exercises of notebook 12, Vision transformers."""

import torch
from torch.nn.functional import scaled_dot_product_attention

from ..exercises import Exercise, exactly


def _looks_back(answer) -> str:
    for tokens in (1, 2, 5):
        q, k, v = torch.randn(3, tokens, 4, generator=torch.Generator().manual_seed(tokens))
        got, want = answer(q, k, v), scaled_dot_product_attention(q, k, v, is_causal=True)
        if got.shape != want.shape or not torch.allclose(got, want, atol=1e-5):
            return f"of {tokens} tokens the first hears only itself, {v[0].tolist()}, and yours gives {got[0].tolist()}"
    return ""


def _moves_at_rest(answer) -> str:
    resting, other = (torch.nn.Linear(2, 1) for _ in range(2))
    both = torch.optim.AdamW([*resting.parameters(), *other.parameters()])
    (resting(torch.ones(2)) + other(torch.ones(2))).sum().backward()
    both.step()  # now there is momentum
    both.zero_grad()
    before, term = resting.weight.detach().clone(), answer(resting)
    if value := torch.as_tensor(term).item():
        return f"your term changes the loss: it is {value:g}, not zero"
    (other(torch.ones(2)).sum() + term).backward()
    both.step()
    return "" if (resting.weight != before).all() else "your term is zero, but the network has not moved"


EXERCISES = {
    "12.1": Exercise("predict", exactly("c"), (
        "an optimizer with momentum does not look at the gradient of the moment alone.",
        "AdamW steps by an average of past gradients; what is that average after one gradient of zero?",
        "m becomes 0.9 m, which is not zero, and the step is m over the root of v.")),
    "12.2": Exercise("compute", exactly((224 // 16) ** 2 + 2), (
        "how many patches lie in a row?",
        "14 patches in a row and 14 in a column; then the tokens that are no patches.",
        "14 * 14 patches, a class token and a distillation token.")),
    "12.3": Exercise("change", _looks_back, (
        "the share of a later token must be zero, and each row must still sum to one.",
        "set the scores of later tokens to minus infinity before the softmax, not the shares to zero after it.",
        "mask = torch.ones_like(scores).tril() == 0; scores.masked_fill(mask, -torch.inf).softmax(dim=-1) @ v")),
    "12.4": Exercise("break", _moves_at_rest, (
        "a gradient of zero is not the same as no gradient.",
        "the term must depend on every parameter of the network, and be zero whatever they are.",
        "0.0 * sum(p.sum() for p in network.parameters())")),
    "12.5": Exercise("explain", exactly("b"), (
        "which cell of the second 2 x 2 table is this?",
        "gain as released, none left when the network is still; and what does labels alone add to the story?",
        "an interval that holds zero does not show that there is no effect, so one of the three says too much.")),
}
