"""Education Distillation: each group of classes has its own teacher, and the student grows from grade to grade.

In grade g a student of the first stages, under a reference head, learns the first g groups of classes. Each picture's
own teacher guides the logits of its own group only. At the last grade the student is the plain network.
Taught in notebooks/11_education_distillation.ipynb.
"""

from __future__ import annotations

from functools import partial
from typing import Iterator, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.curriculum import ClassGroups
from ..models.heads import reference_head
from ..models.layers import macs
from ..models.resnet import ResNet
from ..models.scoring import named_scores
from ..recipes import Recipe
from ..schedule import Course, Event, graded_schedule
from .base import Method
from .baseline import once
from .losses import kl
from .online_kd import ask


class GrowingResNet(nn.Module):
    """A plain ResNet whose lower grades use its first stages, under a head of their own.

    All modules exist from the start, drawn like any other. Growing brings more of them into use, so those in use stay
    as they are, bit for bit.

    Args:
        net: the plain network, for all classes.
        classes: classes known in each grade; the last is the network's own number.
        batch_norm: before the last head (E30).
    """

    def __init__(self, net: ResNet, classes: list[int], batch_norm: bool = False):
        super().__init__()
        stages, grades = len(net.trunk.stages), len(classes)
        self.net, self.grade = net, 1
        self.depths = [max(stages - (grades - grade), 1) for grade in range(1, grades + 1)]
        width = net.trunk.out_channels
        inputs = [net.trunk.stages[depth - 1][-1].residual[-1].num_features for depth in self.depths]
        self.references = nn.ModuleList(
            reference_head(before, width, known, 4 if grade == 0 else 1)
            for grade, (before, known) in enumerate(zip(inputs[:-1], classes)))
        if batch_norm:
            self.references.append(nn.BatchNorm2d(width))

    @property
    def in_use(self) -> list[nn.Module]:
        """The modules of the present grade."""
        if self.grade < len(self.depths):
            trunk = self.net.trunk
            return [trunk.stem, *trunk.stages[:self.depths[self.grade - 1]], self.references[self.grade - 1]]
        return [self.net, *self.references[self.grade - 1:]]

    def body(self, x: Tensor) -> Tensor:
        """Return the map that the present grade's head reads."""
        x = self.net.trunk.stem(x)
        for stage in self.net.trunk.stages[:self.depths[self.grade - 1]]:
            x = stage(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, classes known in the present grade], in float32 at least."""
        if self.grade == len(self.depths) == len(self.references) + 1:
            return self.net(x).logits
        x, head = self.body(x), self.references[self.grade - 1]
        logits = head(x) if self.grade < len(self.depths) else self.net.head(head(x).mean(dim=(2, 3)))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


class Tables(NamedTuple):
    """Index tables of the classes of all groups, for one grade."""

    group_of: Tensor  # [K], each class's group
    local: Tensor  # [K], its number within the group
    columns: list[Tensor]  # where the student's head has each group it knows
    place: Tensor  # [K], where it has each class; one column after its last for those it does not know
    classes: list[Tensor]  # of each group
    taught: Tensor  # [K], where each class is among all teachers' outputs side by side

    @classmethod
    def of(cls, groups: list[list[int]], known: int, whole: bool, device: torch.device) -> Tables:
        """Make the tables; a whole network's outputs follow the classes' order, a growing one's the groups'."""
        order = [c for group in groups for c in group]
        taught, width = [order.index(c) for c in range(len(order))], sum(map(len, groups[:known]))
        group_of = [next(k for k, group in enumerate(groups) if c in group) for c in range(len(order))]
        local = [groups[k].index(c) for c, k in enumerate(group_of)]
        place = list(range(width)) if whole else [min(where, width) for where in taught]
        columns = [[place[c] for c in group] for group in groups[:known]]
        tensor = partial(torch.tensor, device=device)
        return cls(tensor(group_of), tensor(local), list(map(tensor, columns)), tensor(place),
                   list(map(tensor, groups)), tensor(taught))


class Education(Method):
    """Teacher k: cross-entropy on group k, with its own labels. Student: cross-entropy and its teachers' soft loss.

    The student's loss is (1 - alpha) CE over all classes it knows + alpha T^2 KL(own teacher || own slice of the
    logits), mean over the batch.

    Args:
        groups: classes of each group; see `recipes.partition`.
        teachers: one a group, with as many outputs as it has classes.
        images: the student's of each grade and the teachers' of each group, over the whole run.
    """

    irregular = "each batch divides among the groups in its own way"
    whole_batch = "the loss of groups"

    def __init__(self, recipe: Recipe, student: ResNet, growing: GrowingResNet, teachers: nn.ModuleList,
                 groups: list[list[int]], channels: int, size: int, images: tuple[list[int], list[int]] | None = None):
        super().__init__(recipe)
        self.growing, self.teachers, self.groups, self.images = growing, teachers, groups, images
        self.sizes: list[int] | None = None  # of the next batch's groups, so the device need not be asked
        self.grades = len(growing.depths)
        self.modules = {"student": student, "references": growing.references, "teachers": teachers}
        self.tables: dict[tuple[torch.device, int], Tables] = {}  # device, grade -> `Tables`
        self.macs = []  # of a forward pass, grade by grade
        for growing.grade in range(1, self.grades + 1):
            self.macs.append(macs(student, channels, size, lambda x: growing(x)))
        growing.grade = 1
        self.teacher_macs = [macs(teacher, channels, size) for teacher in teachers]

    @classmethod
    def events(cls, recipe: Recipe, course: Course) -> Iterator[Event]:
        return graded_schedule(course, recipe.interval, rule=recipe.rule, tail=recipe.tail, seed=recipe.seed)

    @classmethod
    def batches(cls, recipe: Recipe, batches, classes: int) -> ClassGroups:
        return ClassGroups(batches, recipe, classes)

    def before_update(self, sizes: list[int] | None) -> None:
        self.sizes = sizes

    @property
    def trained(self) -> dict[str, list[nn.Module]]:  # type: ignore[override]  # it changes with the grade
        return {"teach": [self.teachers], "learn": self.growing.in_use}

    @property
    def cost(self) -> dict[str, int]:  # type: ignore[override]  # so does this
        return {"teach": 3 * self.teacher_macs[0], "learn": self._work(self.growing.grade - 1)}

    def _work(self, grade: int) -> int:
        """Return the cost per image of a student's update with its teacher's outputs, in a grade counted from 0."""
        return 3 * self.macs[grade] + self.teacher_macs[0] * bool(self.recipe.alpha)

    @property
    def known(self) -> list[list[int]]:
        """Groups that the student has reached."""
        return self.groups if self.grades == 1 else self.groups[:self.growing.grade]

    def look_up(self, device: torch.device) -> Tables:
        """Return the present grade's tables; they are copied to a device once, as a copy makes a GPU wait."""
        key = device, self.growing.grade
        if key not in self.tables:
            self.tables[key] = Tables.of(self.groups, len(self.known), self.growing.grade == self.grades, device)
        return self.tables[key]

    def grow(self) -> None:
        """Bring the next grade's stage and head into use; the old head is dropped."""
        self.growing.grade += 1

    def teach(self, x: Tensor, y: Tensor) -> dict[str, Tensor] | None:
        """Train each teacher on its own pictures of the batch; one with fewer than two waits (batch norm)."""
        loss, correct = 0.0, 0
        for k, rows in self._rows(y, len(self.groups)).items():
            if len(rows) > 1:
                logits = self.teachers[k].train()(_only(x, rows)).logits
                labels = self.look_up(y.device).local[_only(y, rows)]
                loss, correct = loss + F.cross_entropy(logits, labels), correct + (logits.argmax(1) == labels).sum()
        return {"loss": loss, "correct": correct} if isinstance(loss, Tensor) else None

    def learn(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        r, tables = self.recipe, self.look_up(y.device)
        columns = tables.columns
        rows, targets = self._rows(y, len(columns)), {}
        if r.alpha:
            with torch.no_grad():
                targets = {k: ask(self.teachers[k], _only(x, own), r.teacher_mode).logits for k, own in rows.items()}
        logits = self.growing.train()(x)
        labels = tables.place[y]
        terms = {"hard": F.cross_entropy(logits, labels)}
        terms["loss"] = (1 - r.alpha) * terms["hard"]
        if r.alpha:
            terms["soft"] = self._soft(logits, targets, rows, columns)
            terms["loss"] = terms["loss"] + r.alpha * (r.temperature**2 if r.t_squared else 1.0) * terms["soft"]
        return terms | {"correct": (logits.argmax(1) == labels).sum()}

    def _soft(self, logits: Tensor, targets: dict[int, Tensor], rows: dict[int, Tensor], columns) -> Tensor:
        """Compute the divergence of each picture's own teacher and the student's own slice, mean over the batch."""
        soft = 0.0
        for k, teacher in targets.items():
            own, share = _only(logits, rows[k]), len(rows[k]) / len(logits)
            own = own if len(columns[k]) == own.shape[1] else own[:, columns[k]]
            found = kl(own, teacher, self.recipe.temperature)
            soft = soft + (found if share == 1 else share * found)
        return soft

    def _rows(self, y: Tensor, groups: int) -> dict[int, Tensor]:
        """Return group -> its pictures; of the first groups, those that the batch has."""
        group = self.look_up(y.device).group_of[y]
        sizes = self.sizes or torch.bincount(group, minlength=len(self.groups)).tolist()
        self.sizes = None  # which the next batch does not have
        found = group.argsort(stable=True).split(sizes)
        return {k: rows for k, rows in enumerate(found[:groups]) if len(rows)}

    def predict(self, x: Tensor, memo: dict | None = None) -> dict[str, Tensor]:
        """Return the student's logits, unknown classes at the picture's lowest, and the teachers' by group columns."""
        student = logits = self.growing(x)
        tables = self.look_up(x.device)
        if self.growing.grade < self.grades:
            # One class alone must still be chosen
            least = logits.amin(dim=1, keepdim=True) - float(logits.shape[1] == 1)
            student = torch.cat([logits, least], dim=1)[:, tables.place]
        teachers = torch.cat([once(memo, teacher, x) for teacher in self.teachers], dim=1)
        return {"student": student, "teachers": teachers[:, tables.taught]}

    def scored(self, split: str, outputs: dict[str, Tensor], labels: Tensor) -> dict[str, float]:
        """Score the student, in percent, overall, on seen classes and by group; each teacher within its own group."""
        row = named_scores(split, {"student": outputs["student"]}, labels)
        tables = self.look_up(labels.device)
        hit, group = outputs["student"].argmax(dim=1) == labels, tables.group_of[labels]
        hits = {f"{split}_seen_accuracy": (hit, group < len(self.known))}
        for k, classes in enumerate(tables.classes):
            own = outputs["teachers"][:, classes].argmax(dim=1) == tables.local[labels]
            hits |= {f"{split}_group{k + 1}_accuracy": (hit, group == k),
                     f"teacher{k + 1}_{split}_accuracy": (own, group == k)}
        return row | _percents(hits)

    def summary(self, rows: list[dict]) -> dict[str, float]:
        """Return accuracies at each grade's end, points forgotten since a group's own grade, and the run's GMACs."""
        kept = {key: value for row in rows for key, value in row.items() if key.startswith("grade")}
        for k in range(1, self.grades):
            kept[f"forgotten_group{k}"] = kept[f"grade{k}_test_group{k}_accuracy"] - rows[-1][f"test_group{k}_accuracy"]
        assert self.images, "trained without the batches that tell the images of each grade"
        students, teachers = self.images
        work = sum(n * self._work(grade) for grade, n in enumerate(students))
        taught = sum(3 * n * each for n, each in zip(teachers, self.teacher_macs)) if self.recipe.alpha else 0
        return kept | {"train_gmacs": (work + taught) / 1e9, "student_images": sum(students)}

    def adopt(self, first: Education) -> None:
        self.teachers = self.modules["teachers"] = first.teachers


def _only(x: Tensor, rows: Tensor) -> Tensor:
    """Select rows; for all rows return the tensor itself, which computes the same bits as without groups."""
    return x if len(rows) == len(x) else x[rows]


def _percents(hits: dict[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Convert name -> (hits, pictures that count), bool [N] each, to percent, in one GPU reading; NaN of no picture."""
    counts = torch.stack([torch.stack([hit & which, which]).sum(dim=1) for hit, which in hits.values()]).tolist()
    return {name: 100 * (right / of) if of else float("nan") for name, (right, of) in zip(hits, counts)}
