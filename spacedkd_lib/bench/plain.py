"""The plain way to train with a spaced teacher, the reference of the benchmarks.

torchvision's transforms of one PIL image after the other, contiguous fp32, batches stored until they are replayed, a
teacher for each student. Networks and losses are this package's.
"""

from __future__ import annotations

from functools import partial
from typing import Callable, Iterable

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms

from ..data.batches import STATISTICS
from ..data.datasets import Dataset
from ..methods import build, losses
from ..methods.online_kd import ask
from ..recipes import Recipe


class Pictures(torch.utils.data.Dataset):
    """PIL images, transformed one by one, as torchvision's data sets give them."""

    def __init__(self, dataset: Dataset, transform: Callable):
        self.pixels = dataset.train_images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels, self.transform = dataset.train_labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, k: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[k])), self.labels[k]


def cutout(x: Tensor) -> Tensor:
    """Blackens a square of 16 pixels round a random centre of an image [C, H, W]."""
    row, column = (int(torch.randint(size, ())) for size in x.shape[1:])
    x[:, max(row - 8, 0):row + 8, max(column - 8, 0):column + 8] = 0
    return x


def plain_transform(augment: str, pixels: int = 32) -> Callable:
    """Make torchvision's transforms of "crop_flip_rotate" or "autoaugment_cutout", or timm's of "strong"."""
    if augment == "strong":
        return timm_transform(pixels)
    tensor, normalise = transforms.ToTensor(), transforms.Normalize(*STATISTICS["cifar100"])
    if augment == "crop_flip_rotate":
        return transforms.Compose([transforms.RandomCrop(pixels, padding=4), transforms.RandomHorizontalFlip(),
                                   transforms.RandomRotation(15), tensor, normalise])
    return transforms.Compose([transforms.RandomCrop(pixels, padding=4, fill=128), transforms.RandomHorizontalFlip(),
                               transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10, fill=128), tensor,
                               cutout, normalise])


def timm_transform(pixels: int) -> Callable:
    """Make the released transformer program's transforms."""
    from timm.data import auto_augment, create_transform  # takes seconds

    mean, std = STATISTICS["cifar100"]
    transform = create_transform(pixels, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25,
                                 re_mode="pixel", re_count=1, interpolation="bicubic", mean=mean, std=std)
    for op in next(t for t in transform.transforms if isinstance(t, auto_augment.RandAugment)).ops:
        if op.name == "PosterizeIncreasing":  # timm asks for 0 bits at times: black, but newer PIL raises an error
            op.aug_fn = lambda picture, bits, **_: Image.eval(picture, lambda level: level & (256 - 2 ** (8 - bits)))
    return transform


def plain_loader(dataset: Dataset, batch_size: int, augment: str = "crop_flip_rotate", workers: int = 0) -> DataLoader:
    """Make torch's loader of a data set's training pictures, shuffled."""
    transform = plain_transform(augment, dataset.image_size)
    return DataLoader(Pictures(dataset, transform), batch_size, shuffle=True, num_workers=workers,
                      persistent_workers=workers > 0)


def plain_schedule(loader: Iterable, epochs: int, interval: float, teach: Callable, learn: Callable) -> None:
    """Let the teacher run `interval` epochs ahead; its batches are stored until the student has learned them."""
    stored, length = [], max(int(len(loader) * interval), 1)
    for _ in range(epochs):
        for batch in loader:
            teach(*batch)
            stored.append(batch)
            if len(stored) == length:
                for earlier in stored:
                    learn(*earlier)
                stored.clear()
    for earlier in stored:
        learn(*earlier)


def plain_train(recipe: Recipe, dataset: Dataset, loader: Iterable | None = None,
                device: str = "cpu") -> dict[str, nn.Module]:
    """Train a baseline, or online KD at any interval; return the trained networks by name."""
    r, nets = recipe, build.make(recipe, dataset.channels, dataset.num_classes, dataset.image_size).modules
    nets = {name: net.to(device) for name, net in nets.items()}
    student, teacher, projector = (nets.get(name) for name in ("student", "teacher", "projector"))
    update_student = updater(r, [net for net in (student, projector) if net])
    update_teacher = updater(r, [teacher]) if teacher else None

    def teach(x, y):
        if teacher:
            update_teacher(F.cross_entropy(teacher.train()(x.to(device)).logits, y.to(device)))

    def learn(x, y):
        x, y = x.to(device), y.to(device)
        out = student.train()(x)
        loss = F.cross_entropy(out.logits, y)
        if teacher:
            with torch.no_grad():
                target = ask(teacher, x, r.teacher_mode)
            soft = r.temperature**2 * losses.kl(out.logits, target.logits, r.temperature)
            feature = losses.l2_per_sample(projector(out.features), target.features)
            loss = (1 - r.alpha) * loss + r.alpha * soft + r.beta * feature
        update_student(loss)

    plain_schedule(loader or plain_loader(dataset, r.batch_size), r.epochs, r.interval, teach, learn)
    return nets


def updater(recipe: Recipe, nets: list[nn.Module]) -> Callable[[Tensor], None]:
    """Return a function that makes one update of the networks and waits for its loss, as who logs it does."""
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else partial(torch.optim.SGD, momentum=recipe.momentum)
    optimizer = kind([p for net in nets for p in net.parameters()], lr=recipe.lr, weight_decay=recipe.weight_decay)

    def update(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
    return update
