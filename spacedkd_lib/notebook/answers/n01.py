"""Exercises of notebook 01, Data."""

import torch

from ...data.batches import Batches
from ..exercises import Exercise, agrees, exactly, number


def _leaves_out(answer) -> str:
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    whole, batches = (Batches(images, torch.arange(10), size, seed=0, drop_last=True) for size in (10, 4))

    def order(epoch):
        return whole.indices(epoch).tolist()
    return agrees([(i,) for i in range(5)], lambda i: batches.indices(i).tolist())(lambda i: list(answer(order, i, 4)))


def _goes_wrong(answer) -> str:
    asked = [[int(k) for k in answer(5)] for _ in range(4)]
    if any(len(set(batch)) != 3 or not set(batch) <= set(range(10)) for batch in asked):
        return f"a batch holds three different numbers from 0 to 9, and yours gave {asked[0]}"
    same = all(batch == asked[0] for batch in asked)
    return f"batch 5 was {asked[0]} each time it was asked for, so its replay is right" if same else ""


EXERCISES = {
    "01.1": Exercise("predict", exactly("seen"),
                     ("what does the bold sister of a letter look like?",
                      "the most similar training picture is often the same letter in the same font, or in a sister.",
                      "only for fonts that it has seen does the same font stand among the training pictures.")),
    "01.2": Exercise("compute", number(586 * 128 * 3 * 32 * 32 * 4 / 1e6),
                     ("how many numbers does one picture hold, and how many bytes are that?",
                      "batches times pictures in a batch times numbers in a picture times bytes in a number.",
                      "586 * 128 * (3 * 32 * 32) * 4 bytes; divide by a million.")),
    "01.3": Exercise("change", _leaves_out,
                     ("only the number of batches in an epoch changes.",
                      "10 pictures in batches of 4 make 2 batches: which rounding is that?",
                      "divmod(i, len(order(0)) // B) gives the epoch and the place in it; cut order(epoch) there.")),
    "01.4": Exercise("break", _goes_wrong,
                     ("which randomness does not depend on i?",
                      "torch.randperm(10)[:3] has the right form; which generator does it use?",
                      "without an argument `generator`, torch draws from one that runs on from call to call.")),
    "01.5": Exercise("explain", exactly("b"),
                     ("does a picture's number change from epoch to epoch?",
                      "what did we want from augmentation: many versions, or one?",
                      "the same seed gives the same draws, so a picture would be cropped alike for ever.")),
}
