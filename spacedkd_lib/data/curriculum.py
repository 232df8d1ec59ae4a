"""Batches of Education Distillation: a part for each group of classes, and grades that join the parts.

In the loop a `ClassGroups` replaces `batches.Batches`: by number it gives a batch to the teachers, and through
`learned` one to a student. Nothing is copied: every part is a list of image numbers.
Taught in notebooks/11_education_distillation.ipynb.
"""

from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor

from ..recipes import Recipe, grade_lengths, partition
from ..schedule import Course
from .batches import Batches


class Interleaved:
    """Batches of several parts, an epoch of each within an epoch: one part after the other, or evenly `mixed`.

    >>> images = torch.zeros(6, 1, 1, 1, dtype=torch.uint8); images[0] = 1
    >>> all_of = Batches(images, torch.arange(6), 2, seed=0)
    >>> parts = [all_of.of(torch.arange(4), "a"), all_of.of(torch.arange(4, 6), "b")]
    >>> [k for k, _ in Interleaved(parts).places], [k for k, _ in Interleaved(parts, mixed=True).places]
    ([0, 0, 1], [0, 1, 0])
    """

    def __init__(self, parts: list[Batches], mixed: bool = False):
        self.parts = parts
        self.places = [(k, j) for k, part in enumerate(parts) for j in range(len(part))]
        if mixed:
            self.places.sort(key=lambda place: (place[1] + 0.5) / len(parts[place[0]]))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        part, j = self._locate(i)
        return part[j]

    def indices(self, i: int) -> Tensor:
        """Return the image numbers of batch i: int64 [B], on the CPU."""
        part, j = self._locate(i)
        return part.indices(j)

    def _locate(self, i: int) -> tuple[Batches, int]:
        epoch, position = divmod(i, len(self))
        k, j = self.places[position]
        return self.parts[k], epoch * len(self.parts[k]) + j

    @property
    def count(self) -> int:
        return sum(part.count for part in self.parts)

    def fresh(self) -> Interleaved:
        return Interleaved([part.fresh() for part in self.parts])


class CurriculumBatches:
    """A student's batches over all its grades, by their number in the run."""

    def __init__(self, parts: list, course: Course, by_group: Callable[[Tensor], list[int]]):
        self.parts, self.course, self.by_group = parts, course, by_group

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        grade, local = self.course.locate(i)
        return self.parts[grade][local]

    def indices(self, i: int) -> Tensor:
        grade, local = self.course.locate(i)
        return self.parts[grade].indices(local)

    def sizes(self, i: int) -> list[int]:
        """Count the pictures of each group in batch i."""
        return self.by_group(self.indices(i))


class ClassGroups(Interleaved):
    """The batches of Education Distillation: the teachers' lessons, and through `learned` a student's.

    Args:
        batches: of all training images.
        recipe: gives the schools and the teachers' training.
        classes: K.

    Raises:
        InputError: groups that are no partition of the classes, or one without training images.
    """

    def __init__(self, batches: Batches, recipe: Recipe, classes: int):
        self.batches, self.recipe = batches, recipe
        groups = partition(recipe, classes)
        lost = {group[0] for group in groups[1:]} if recipe.school_bounds == "strict" else set()
        of_class = torch.tensor([-1 if c in lost else next(k for k, group in enumerate(groups) if c in group)
                                 for c in range(classes)])
        self.of_image = of_class[batches.labels.cpu()]
        self.where = [(self.of_image == k).nonzero().flatten() for k in range(len(groups))]
        super().__init__([batches.of(chosen, f"school {k + 1}") for k, chosen in enumerate(self.where)], mixed=True)

    @property
    def images(self) -> Tensor:
        return self.batches.images

    def sizes(self, i: int) -> list[int]:
        """Count the pictures of each group in the teachers' batch i."""
        return self.by_group(self.indices(i))

    def by_group(self, which: Tensor) -> list[int]:
        """Count these images by group."""
        return torch.bincount(self.of_image[which], minlength=len(self.parts)).tolist()

    def course(self, recipe: Recipe) -> Course:
        """Return the lengths of a recipe's grades, in epochs and batches."""
        parts = self._parts(recipe)
        return Course(tuple(zip(grade_lengths(recipe), map(len, parts))), len(self))

    def learned(self, recipe: Recipe) -> CurriculumBatches:
        parts = [part if recipe.replay == "same" else part.fresh() for part in self._parts(recipe)]
        course = Course(tuple(zip(grade_lengths(recipe), map(len, parts))))
        return CurriculumBatches(parts, course, self.by_group)

    def images_seen(self, recipe: Recipe) -> tuple[list[int], list[int]]:
        """Count a student's training images in each grade, and each teacher's, over the whole run."""
        epochs = grade_lengths(recipe)
        student = [part.count * length for part, length in zip(self._parts(recipe), epochs)]
        return student, [len(chosen) * sum(epochs) for chosen in self.where]

    def _parts(self, recipe: Recipe) -> list:
        """Return an epoch's batches in each grade; without growth there is one grade, of all groups."""
        last = len(self.where)
        parts: list[Batches | Interleaved] = []
        for grade in range(1, last + 1) if recipe.growth == "grow" else [last]:
            chosen = torch.cat(self.where[:grade]).sort().values
            if recipe.grade_batches == "sequential":
                parts.append(Interleaved([self.batches.of(part, f"grade {grade}, school {k + 1}")
                                    for k, part in enumerate(self.where[:grade])]))
            else:
                all_images = len(chosen) == len(self.images)
                parts.append(self.batches if all_images else self.batches.of(chosen, f"grade {grade}"))
        return parts
