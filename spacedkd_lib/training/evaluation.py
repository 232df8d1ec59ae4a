"""Predictions of runs on whole sets, and their scores."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.batches import generator, normalised, seed_noise
from ..methods import dropout_ema
from ..models.scoring import eval_mode
from ..recipes import Recipe
from .run import Run

PROBED = 500  # test pictures that a method's own numbers are computed from, and a CPU scores at once (ours)


def evaluator(sets: dict[str, tuple[Tensor, Tensor]], statistics, device):
    """Return a function that scores runs on each named set of (images, labels): one dict of numbers a run.

    A GPU takes more pictures at once, so it need not wait for the host (ours).
    """
    batch_size = PROBED if torch.device(device).type == "cpu" else 5 * PROBED
    held = {name: (images.to(device), labels.to(device)) for name, (images, labels) in sets.items()}

    def evaluate(runs: list[Run]) -> list[dict[str, float]]:
        rows: list[dict[str, float]] = [{} for _ in runs]
        for run in runs:
            run.method.before_scores()
        networks = torch.nn.ModuleList(module for run in runs for module in run.method.modules.values())
        with eval_mode(networks), runs[0].autocast(torch.device(device).type):
            for split, (images, labels) in held.items():
                outputs: list[list[dict[str, Tensor]]] = [[] for _ in runs]
                for part in images.split(batch_size):
                    x = normalised(part, statistics)
                    memo: dict[torch.nn.Module, Tensor] = {}  # a shared teacher is asked once
                    for run, got in zip(runs, outputs):
                        if not _scored_as_released(run.recipe):
                            got.append(run.method.predict(x, memo))
                for run, row, got in zip(runs, rows, outputs):
                    got = got or _as_released(run, split, images, statistics)
                    whole = {name: torch.cat([o[name] for o in got]).float() for name in got[0]}
                    row |= run.method.scored(split, whole, labels)
                    run.predicted[split] = whole["student"].argmax(dim=1)
                    if split == "test":
                        row |= run.method.diagnose(normalised(images[:PROBED], statistics))
        return rows
    return evaluate


def _scored_as_released(recipe: Recipe) -> bool:
    """Return whether a prediction depends on its batch's other pictures, or on the batch's number (B1, B2, M1)."""
    return recipe.dropout_at_test != "off" or recipe.ema_statistics == "batch"


def _as_released(run: Run, split: str, images: Tensor, statistics) -> list[dict[str, Tensor]]:
    """Predict in batches of 128 shuffled pictures, one order a seed, dropout by epoch; restore the pictures' order."""
    order = torch.randperm(len(images), generator=generator(run.recipe.seed, "test order", split)).to(images.device)
    epoch, answers = len(run.rows) + 1, []
    seed_noise(images.device, run.recipe.seed, "noise", split, epoch)
    for batch, which in enumerate(order.split(dropout_ema.TEST_BATCH)):
        if run.recipe.dropout_at_test != "off":
            run.set_dropout(run.method.modules.values(),
                            dropout_ema.number_at_test(run.recipe, epoch, batch, *run.lengths))
        answers.append(run.method.predict(normalised(images[which], statistics)))
    back = order.argsort()
    return [{name: torch.cat([answer[name] for answer in answers])[back] for name in answers[0]}]
