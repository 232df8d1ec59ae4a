"""What is measured of a finished run: its student, pictures as it sees them, and one function a measure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from ..data import datasets
from ..data.batches import Statistics, generator, normalised, statistics_of
from ..recipes import Recipe
from ..training.student import trained_network
from . import curvature, landscape, robustness

Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Trained:
    """A finished run on this machine: its student, and pictures as it sees them, both on `device`.

    Raises (on use):
        InputError: its weights are not on this machine.
    """

    recipe: Recipe
    device: str = "cpu"

    @cached_property
    def student(self) -> nn.Module:
        return self._network("student")

    @cached_property
    def teacher(self) -> nn.Module | None:
        """Return the teacher at the end of the run; None where the method has none."""
        return self._network("teacher")

    def _network(self, role: str) -> nn.Module | None:
        dataset = dataset_of(self.recipe)
        net = trained_network(self.recipe, role, dataset.channels, dataset.num_classes, dataset.image_size)
        return net and net.eval().to(self.device, memory_format=torch.channels_last)

    @cached_property
    def _used(self) -> Tensor:
        dataset = dataset_of(self.recipe)
        return datasets.split(dataset, self.recipe.train_images, self.recipe.val_fraction, self.recipe.seed)[0]

    @cached_property
    def statistics(self) -> Statistics:
        """Return the channel statistics by which the run normalised its pictures."""
        return statistics_of(self.recipe.normalise, dataset_of(self.recipe).train_images[self._used])

    def training(self, most: int) -> tuple[Tensor, Tensor]:
        """Return x [N, C, H, W], normalised, and y: at most so many training pictures, the same for all of a seed."""
        dataset = dataset_of(self.recipe)
        which = self._used[_some(len(self._used), most)]
        x = normalised(dataset.train_images[which], self.statistics, device=self.device)
        return x, dataset.train_labels[which].to(self.device)

    def test(self, most: int) -> tuple[Tensor, Tensor]:
        """Return at most so many test pictures, the same for every run of this data set: uint8 [N, C, H, W], and y."""
        dataset = dataset_of(self.recipe)
        which = _some(len(dataset.test_images), most)
        return dataset.test_images[which].to(self.device), dataset.test_labels[which].to(self.device)


def dataset_of(recipe: Recipe) -> datasets.Dataset:
    """Load a recipe's data set; the last ones stay in memory."""
    return _loaded(recipe.dataset, datasets.fold(recipe.dataset, recipe.seed))


@lru_cache(maxsize=4)
def _loaded(name: str, fold: int) -> datasets.Dataset:
    return datasets.load(name, seed=fold)


def _some(available: int, most: int) -> Tensor:
    return torch.randperm(available, generator=generator("subset"))[:most]


# The measures: each a function of a run and its settings

def noise(run: Trained, images: int, sigmas: list[float], draws: int) -> Values:
    """Measure the loss under noise in the weights, at each sigma."""
    got = landscape.weight_noise(run.student, *run.training(images), sigmas, draws)
    return {"sigmas": np.array(sigmas), **got}


def curvature_of(run: Trained, images: int, products: int, repeats: int) -> Values:
    """Measure curvatures of the loss at a run's final weights, see `curvatures`."""
    found = curvatures(run.student, *run.training(images), products, repeats)
    return {name: np.array(value) for name, value in found.items()}


def curvatures(net: nn.Module, x: Tensor, y: Tensor, products: int, repeats: int) -> dict[str, float]:
    """Trace with its standard error, largest eigenvalue and SAM's sharpness, plain and relative."""
    found = {}
    for relative, prefix in ((False, ""), (True, "relative_")):
        operator = curvature.hessian(net, x, y, relative)
        trace = curvature.trace(operator, products, repeats)
        found |= {f"{prefix}trace": trace.mean, f"{prefix}trace_se": trace.standard_error,
                  f"{prefix}eigenvalue": float(curvature.top_eigenvalues(operator, tolerance=0.03)[0]),
                  f"{prefix}sharpness": landscape.sharpness(net, x, y, 0.5 if relative else 0.05, relative=relative)}
    return found


def robustness_of(run: Trained, images: int, severities: list[int], radii: list[float]) -> Values:
    """Scores of the student on test pictures, clean, corrupted and attacked; and agreement with its teacher."""
    rows = robustness.robust_scores(run.student, run.teacher, *run.test(images), run.statistics, severities, radii)
    return {name: np.array([row.get(name, np.nan) for row in rows]) for name in (
        "kind", "name", "severity", "radius", "accuracy", "nll", "ece", "agreement")}
