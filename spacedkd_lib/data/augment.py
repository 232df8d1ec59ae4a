"""Augmentation of whole batches, per sample, equal bit for bit to PIL on single images.

`draw` draws a batch's parameters on the CPU; `ready` turns them, still there, into the inputs of `changed` on the
images' device; `to_device` copies them there at once. So a GPU neither waits nor computes a cosine.
The arithmetic follows PIL's C code (16.16 fixed point, truncation to 8 bits): nothing depends on the device.

Shapes: B images of a batch, G images that share an operation, C channels (1 or 3), H rows, W columns.
Images are uint8 [B, C, H, W]. Signs are PIL's: a map says which input pixel an output pixel reads.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .operations import CROP_FILL, MATRICES, MAX_ANGLE, OPERATIONS, cutout, fixed_point, rotation, source_of, span, take

# AutoAugment's CIFAR-10 policy: 25 sub-policies of two operations, each with its probability and level
# (0 where the operation has none). The released self-KD program's table is torchvision's.
_POLICY = """
invert       .1 0  contrast     .2 6
rotate       .7 2  translate_x  .3 9
sharpness    .8 1  sharpness    .9 3
shear_y      .5 8  translate_y  .7 9
autocontrast .5 0  equalize     .9 0
shear_y      .2 7  posterize    .3 7
colour       .4 3  brightness   .6 7
sharpness    .3 9  brightness   .7 9
equalize     .6 0  equalize     .5 0
contrast     .6 7  sharpness    .6 5
colour       .7 7  translate_x  .5 8
equalize     .3 0  autocontrast .4 0
translate_y  .4 3  sharpness    .2 6
brightness   .9 6  colour       .2 8
solarize     .5 2  invert       .0 0
equalize     .2 0  autocontrast .6 0
equalize     .2 0  equalize     .6 0
colour       .9 9  equalize     .6 0
autocontrast .8 0  solarize     .2 8
brightness   .1 3  colour       .7 0
solarize     .4 5  autocontrast .9 0
translate_y  .9 9  translate_y  .7 9
autocontrast .9 0  solarize     .8 3
equalize     .8 0  invert       .1 0
translate_y  .7 9  autocontrast .9 0
"""
POLICY = tuple(tuple((row[k], float(row[k + 1]), int(row[k + 2])) for k in (0, 3))
               for row in map(str.split, _POLICY.strip().splitlines()))


# Magnitude at level 0 and at level 9, linear in between; released self-KD program (torchvision solarizes from
# 255, and cuts a shift down to whole pixels where the released program rounds it).
RANGES = {
    "shear_y": (0.0, 0.3),  # rows a column
    "translate_x": (0.0, 150 / 331),  # share of the width
    "translate_y": (0.0, 150 / 331),  # share of the height
    "rotate": (0.0, 30.0),  # degrees, counter-clockwise only in the released program and its sources (A19)
    "brightness": (0.0, 0.9), "colour": (0.0, 0.9), "contrast": (0.0, 0.9), "sharpness": (0.0, 0.9),  # 1 +- m
    "posterize": (8.0, 4.0),  # bits kept, rounded
    "solarize": (256.0, 0.0),  # smallest grey level that is inverted
}
SIGNED = ("shear_y", "translate_x", "translate_y", "brightness", "colour", "contrast", "sharpness")


def magnitude(name: str, level: int) -> float:
    """Return an AutoAugment operation's magnitude at a level from 0 to 9, without its sign; 0 if it has none.

    >>> magnitude("rotate", 3), magnitude("posterize", 7), magnitude("invert", 0)
    (10.0, 5, 0.0)
    """
    first, last = RANGES.get(name, (0.0, 0.0))
    value = first + (last - first) * level / 9
    return round(value) if name == "posterize" else value


def padding(height: int) -> int:
    """Return the pixels of padding before a random crop: 4 (released programs); below 32 rows in proportion (ours).

    >>> padding(32), padding(16), padding(64)
    (4, 2, 4)
    """
    return max(1, min(4, 4 * height // 32))


def draw(augment: str, count: int, height: int, width: int,
         generator: torch.Generator) -> dict[str, Tensor]:
    """Draw the random parameters of `count` images on the CPU, one row an image; `ready` takes them.

    Returns:
        {} for "none"; else shift int [B, 2] (rows, columns; the crop's corner relative to the image's) and flip bool
        [B]. "crop_flip_rotate" adds angle float64 [B], degrees. AutoAugment with cutout adds policy int [B], chance
        float [B, 2], sign int [B, 2] (+1 or -1) and centre int [B, 2] (row, column).
    """
    if augment == "none":
        return {}
    pad = padding(height)
    drawn = {"shift": torch.randint(-pad, pad + 1, (count, 2), generator=generator),
             "flip": torch.rand(count, generator=generator) < (0 if augment == "crop" else 0.5)}
    if augment == "crop_flip_rotate":
        drawn["angle"] = MAX_ANGLE * (2 * torch.rand(count, generator=generator, dtype=torch.float64) - 1)
    if augment == "autoaugment_cutout":
        drawn["policy"] = torch.randint(len(POLICY), (count,), generator=generator)
        drawn["chance"] = torch.rand(count, 2, generator=generator)
        drawn["sign"] = 2 * torch.randint(2, (count, 2), generator=generator) - 1
        drawn["centre"] = torch.stack([torch.randint(size, (count,), generator=generator)
                                       for size in (height, width)], dim=1)
    return drawn


def ready(drawn: dict[str, Tensor], height: int, width: int) -> dict:
    """Compute, on the CPU, the inputs that `changed` needs to apply `drawn`; `to_device` moves them."""
    if "shift" not in drawn:
        return {}
    made = {"shift": drawn["shift"].int(), "flip": drawn["flip"].int()}
    if "angle" in drawn:
        made["turn"] = fixed_point(rotation(drawn["angle"], height, width))
    if "policy" in drawn:
        made |= {"centre": drawn["centre"]} | grouped(chosen(drawn), height, width, MATRICES)
    return made


def to_device(made: dict, device: torch.device) -> dict:
    """Move the tensors of `made` to `device` in one asynchronous copy; on the CPU return them as they are.

    Each copy pins its bytes afresh. Torch's allocator reuses a pinned block only when the copies out of it are done, so
    nothing is overwritten under way.
    """
    if device.type == "cpu":
        return made
    tensors = [(name, value) for name, value in made.items() if isinstance(value, Tensor)]
    tensors.sort(key=lambda item: -item[1].element_size())  # so each begins at a multiple of its elements' size
    packed = torch.cat([tensor.contiguous().view(-1).view(torch.uint8) for _, tensor in tensors])
    parts = packed.pin_memory().to(device, non_blocking=True).split([tensor.nbytes for _, tensor in tensors])
    return made | {name: part.view(tensor.dtype).view(tensor.shape) for (name, tensor), part in zip(tensors, parts)}


@lru_cache
def constant(values: tuple, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a read-only tensor made once a device, because making it again would wait for a GPU."""
    return torch.tensor(values, dtype=dtype, device=device)


def changed(images: Tensor, made: dict) -> Tensor:
    """Apply the result of `ready`, on the device of both."""
    if "shift" not in made:
        return images
    if "centre" not in made:
        return crop_flip_rotate(images, made["shift"], made["flip"], made.get("turn"))
    images = crop_flip_rotate(images, made["shift"], made["flip"], fill=CROP_FILL)
    return cutout(operated(images, made, OPERATIONS), made["centre"])


def crop_flip_rotate(images: Tensor, shift: Tensor, flip: Tensor, turn: Tensor | None = None,
                     fill: int = 0) -> Tensor:
    """Pad with `fill`, crop, flip left to right and rotate, as three maps of pixel indices and one gather.

    Args:
        shift, flip, turn: int32 [B, 2], [B] and [B, 6], as `ready` makes them.
    """
    (height, width), device = images.shape[-2:], images.device
    down, right = shift[:, :, None, None].unbind(1)
    mirror = flip[:, None, None]
    if turn is None:
        row, column, beyond = span(height, device)[:, None], span(width, device), 0
    else:
        row, column = source_of(turn, height, width)
        # Outside the crop is `fill`, even where the image goes on: sign bits make such rows -1.
        beyond = (row | column | (height - 1 - row) | (width - 1 - column)) >> 31
    column = column * (1 - 2 * mirror) + (mirror * (width - 1) + right)
    return take(images, (row + down) | beyond, column, fill)


# Operations that differ from image to image: two in turn, each of those images that share it

def chosen(drawn: dict) -> list[list[tuple[str, float]]]:
    """Return each image's two operations and values, of its sub-policy; "" unless chance lies below probability."""
    slots: list[list[tuple[str, float]]] = []
    signs = drawn["sign"].tolist()
    chances, rows = drawn["chance"].tolist(), [POLICY[row] for row in drawn["policy"].tolist()]
    for slot in range(2):
        slots.append([])
        for row, chance, sign in zip(rows, chances, signs):
            name, probability, level = row[slot]
            value = magnitude(name, level) * (sign[slot] if name in SIGNED else 1)
            slots[-1].append((name, value) if chance[slot] < probability else ("", 0.0))
    return slots


def grouped(chosen: list[list[tuple[str, float]]], height: int, width: int, matrices: dict) -> dict:
    """Sort a batch by operation, for `operated`; on the CPU.

    Args:
        chosen: for each slot an operation ("" for none) and its value, image by image.
        matrices: operations that become one, "affine", and functions that make matrices [G, 6] of their values.

    Returns:
        groups: for each slot, operation -> number of images. order, back: the images sorted, and where each then is,
        int64 [slots, B]. values: of the sorted images, float64 [slots, B, 6]: a matrix, or a value and zeros.
    """
    groups, orders, tables = [], [], []
    for slot in chosen:
        order = sorted(range(len(slot)), key=lambda image: (slot[image][0] in matrices, slot[image][0]))
        names, values = zip(*(slot[image] for image in order))
        table, counts = F.pad(torch.tensor(values, dtype=torch.float64)[:, None], (0, 5)), Counter(names)
        for name, part in zip(counts, table.split(list(counts.values()))):
            if name in matrices:
                part.copy_(matrices[name](part[:, 0], height, width))
        groups.append(Counter("affine" if name in matrices else name for name in names))
        orders.append(order)
        tables.append(table)
    order = torch.tensor(orders)
    return {"groups": groups, "order": order, "back": order.argsort(1), "values": torch.stack(tables)}


def operated(images: Tensor, made: dict, operations: dict) -> Tensor:
    """Apply the operations sorted by `grouped`: uint8 [B, C, H, W] -> uint8 [B, C, H, W]."""
    for slot, groups in enumerate(made["groups"]):
        counts = list(groups.values())
        parts = images.index_select(0, made["order"][slot]).split(counts)
        values = made["values"][slot].split(counts)
        done = [_operated(*each, operations) for each in zip(groups, parts, values)]
        images = torch.cat(done).index_select(0, made["back"][slot])
    return images


def _operated(name: str, images: Tensor, values: Tensor, operations: dict) -> Tensor:
    if not name:
        return images
    return operations[name](images, values if name == "affine" else values[:, 0])
