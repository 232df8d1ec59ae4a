"""Material of the benchmarks: sizes, random pictures, and the place where a stage on a GPU writes.

What a step costs does not depend on what the pictures show.
"""

from __future__ import annotations

import csv
import hashlib
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Iterator

import torch

from ..data.datasets import Dataset
from ..recipes import Recipe
from ..training.train import sweep


@dataclass(frozen=True)
class Size:
    """How large the measured work is, and under which name it is kept.

    batch: images a batch of the interval, and of the augmentation. small_batch: of the sweep.
    pictures: in the set whose replay is held. folder: under results/.
    """

    model: str = "resnet18"
    width: int = 0
    batch: int = 128
    small_batch: int = 32
    repeats: int = 3
    pictures: int = 50_000
    folder: str = "bench"

    def recipe(self, batch: int, epochs: int, precision: str = "fp32") -> Recipe:
        return Recipe(dataset="random pictures", model=self.model, width=self.width, batch_size=batch, epochs=epochs,
                      lr_schedule="constant", normalise="cifar100", eval_every=epochs, precision=precision)


FULL = Size()
QUICK = Size("resnet8", 4, 8, 8, 1, 160, "smoke")  # smoke is what git ignores


def pictures(count: int, pixels: int = 32) -> Dataset:
    """Make a random set of CIFAR-100's shape with two test images, so that evaluation costs next to nothing."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count + 2, 3, pixels, pixels), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count + 2) % 100
    return Dataset("random pictures", images[2:], labels[2:], images[:2], labels[:2],
                   tuple(f"class {k}" for k in range(100)))


def digest(recipe: Recipe, dataset: Dataset, device: str) -> str:
    """SHA-256 of a run's final weights; also for worker processes."""
    torch.set_num_threads(1)
    outcome, = sweep([recipe], dataset, device, engine="graph")
    return hashlib.sha256(b"".join(tensor.cpu().numpy().tobytes() for tensor in outcome.weights.values())).hexdigest()


def pace(recipes: list[Recipe], dataset: Dataset, device: str, engine: str) -> dict:
    """Measure how fast a single seed trains, or several together, by the median of all epochs but the first.

    It serves worker processes too.

    Returns:
        seconds: of an epoch. updates: in it, of a seed. images_s: images that went through an update, a second.
        tflops: multiply-accumulates times two of these updates. engine: what the record says.
    """
    torch.set_num_threads(1)
    (rows, summary, origin, *_), *_ = sweep(recipes, dataset, device, engine=engine)
    seconds = median(row["seconds"] for row in rows[1:])
    return {"seconds": seconds, "updates": rows[-2]["teacher_updates"] + rows[-2]["student_updates"],
            "images_s": len(recipes) * median(row["images_per_second"] for row in rows[1:]),
            "tflops": len(recipes) * 2e-3 * summary["train_gmacs"] / len(rows) / seconds, "engine": origin["engine"]}


@dataclass(frozen=True)
class Place:
    """Where a stage of bench/gpu.py works, and where it writes each finding at once.

    folder: of all that is written. device: "cuda"; or "cpu", for a dry run of tiny sizes. started, until: of the whole
    command and of this stage, by the monotonic clock. data: of stage science.
    """

    folder: Path
    device: str
    started: float
    until: float
    data: str = "cifar100"

    @property
    def dry(self) -> bool:
        return self.device == "cpu"

    def say(self, line: str) -> None:
        """Write a line to the terminal and to log.txt, with the time since the command began."""
        line = f"[{time.monotonic() - self.started:6.1f} s] {line}"
        print(line, flush=True)
        with open(self.folder / "log.txt", "a") as file:
            file.write(f"{line}\n")

    def add(self, table: str, **line) -> None:
        """Write a line to <table>.csv, whose lines all have the same columns; and to the log."""
        path = self.folder / f"{table}.csv"
        first = not path.exists()
        with open(path, "a", newline="") as file:
            writer = csv.DictWriter(file, list(line), lineterminator="\n")
            if first:
                writer.writeheader()
            writer.writerow(line)
        self.say(f"{table}: " + ", ".join(f"{value:.4g}" if isinstance(value, float) else str(value)
                                          for value in line.values() if value != ""))

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Let what is inside fail: the log says so, and the stage goes on."""
        try:
            yield
        except Exception as error:
            self.say(f"FAIL {what}: {type(error).__name__}: {error}\n{traceback.format_exc()}")
