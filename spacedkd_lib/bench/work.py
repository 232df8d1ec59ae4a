"""What the benchmark works on: sizes, and random pictures. What a step costs does not depend on what they show."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..data import Dataset
from ..recipes import Recipe


@dataclass(frozen=True)
class Size:
    """How large the measured work is, and under which name it is kept.

    batch: images a batch of the interval, and of the augmentation. small_batch: of the sweep and of the levers.
    pictures: in the set whose replay is held. points: of each panel of `growth`. folder: under results/ and figures/.
    """

    model: str = "resnet18"
    width: int = 0
    batch: int = 128
    small_batch: int = 32
    repeats: int = 3
    pictures: int = 50_000
    points: int = 5
    folder: str = "bench"

    def recipe(self, batch: int, epochs: int, precision: str = "fp32") -> Recipe:
        return Recipe(dataset="random pictures", model=self.model, width=self.width, batch_size=batch, epochs=epochs,
                      lr_schedule="constant", normalise="cifar100", eval_every=epochs, precision=precision)


FULL = Size()
QUICK = Size("resnet8", 4, 8, 8, 1, 160, 2, "smoke")  # smoke is what git ignores


def pictures(count: int, pixels: int = 32) -> Dataset:
    """A random set of CIFAR-100's shape with two test images, so that evaluation costs next to nothing."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count + 2, 3, pixels, pixels), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count + 2) % 100
    return Dataset("random pictures", images[2:], labels[2:], images[:2], labels[:2],
                   tuple(f"class {k}" for k in range(100)), "0" * 64)
