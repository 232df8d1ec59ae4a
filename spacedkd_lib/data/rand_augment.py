"""Strong augmentation of the released transformer programs, of whole batches, equal bit for bit to PIL.

A random part of the image is resized and flipped; RandAugment changes it; noise replaces a rectangle of it.
This module also resizes images for the other augmentations. Tests check it against timm, whose transforms the released
programs call. As in augment.py, `draw` and `ready` work on the CPU, and whole numbers are exact on every device.

Shapes: B images of a batch, G images that share an operation, C channels (1 or 3), H rows, W columns.
Taught in notebooks/12_vision_transformers.ipynb.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import augment as pixels, operations

# Source of all numbers: the released program's call of timm ("rand-m9-mstd0.5-inc1") and timm's defaults.
CROP_SHARE, CROP_RATIO = (0.08, 1.0), 4 / 3  # of the image's area; the longer side to the shorter, at most
ERASED, ERASED_SHARE, ERASED_RATIO = 0.25, (0.02, 1 / 3), 1 / 0.3  # how often, share of the area, ratio
TRIES = 10  # to draw a rectangle that fits
LEVEL, LEVEL_DEVIATION, TOP_LEVEL, APPLIED = 9, 0.5, 10, 0.5  # of RandAugment; how often an operation is applied
FILL, GREY_FILL = (124, 116, 104), (117,)  # ImageNet's mean, where an operation looks beyond the edge; its luma (ours)
BITS = 22  # PIL's fixed point of resizing
CHUNK = 32  # images that a CPU resizes together; so the sums stay in a processor's cache (at 64 pixels twice as fast)


def draw(augment: str, count: int, height: int, width: int, generator: torch.Generator, size: int = 0) -> dict:
    """Draw the random parameters of `count` images on the CPU, one row an image; `ready` takes them.

    Args:
        augment: one of `recipes.AUGMENTATIONS`.
        height, width: of the images, pixels.
        size: side of the result, pixels; 0: the images' own.

    Returns:
        For other augmentations the result of `augment.draw`. For "strong" flip bool [B]; operation int [B, 2] (place
        in `NAMES`), applies bool [B, 2], level float64 [B, 2], sign int [B, 2] (+1 or -1); hole int [B, 4]
        (top, left, height, width; all 0 without one) and noise, the seed of its filling. Where images are
        resized, also box int [B, 4], the part kept, and size, its new (rows, columns).
    """
    rows, columns = out = (size, size) if size else (height, width)
    if augment != "strong":
        drawn = pixels.draw(augment, count, rows, columns, generator)
        whole = torch.tensor([[0, 0, height, width]]).expand(count, -1)
        return drawn if out == (height, width) else drawn | {"box": whole, "size": out}
    shape, uniform = (count, 2), torch.rand(count, 2, generator=generator)
    return {"box": _draw_box(count, height, width, generator), "size": out,
            "flip": uniform[:, 0] < 0.5,
            "operation": torch.randint(len(NAMES), shape, generator=generator),
            "applies": torch.rand(shape, generator=generator) < APPLIED,
            "level": (LEVEL + LEVEL_DEVIATION * torch.randn(shape, generator=generator, dtype=torch.float64)
                      ).clamp(0, TOP_LEVEL),
            "sign": 2 * torch.randint(2, shape, generator=generator) - 1,
            "hole": _draw_hole(count, rows, columns, generator) * (uniform[:, 1] < ERASED)[:, None],
            "noise": int(torch.randint(2**32, (), generator=generator))}


def ready(drawn: dict, shape: tuple[int, int, int], device: torch.device) -> dict:
    """Compute, on the CPU, the inputs that `changed` and `filled` need to apply `drawn`; `to_device` moves them.

    Args:
        shape: channels, rows and columns of the result.
        device: of the images. A GPU rather computes more than starts more: it has one operation for all geometry.
    """
    channels, rows, columns = shape
    made = _ready_to_resize(drawn["box"], drawn["size"]) if "box" in drawn else {}
    if "operation" not in drawn:
        return made | pixels.ready(drawn, rows, columns)
    matrices = {name: matrix for name, matrix in MATRICES.items() if device.type != "cpu" or name not in OPERATIONS}
    made |= {"mirror": drawn["flip"]} | pixels.grouped(chosen(drawn), rows, columns, matrices)
    return made | _ready_to_erase(drawn["hole"], drawn["noise"], channels)


def changed(images: Tensor, made: dict) -> Tensor:
    """Apply the result of `ready`, but for the noise, on the device of both."""
    if "row_weights" in made:
        images = _resized(images, made)
    if "mirror" not in made:
        return pixels.changed(images, made)
    images = torch.where(made["mirror"][:, None, None, None], images.flip(-1), images)
    return pixels.operated(images, made, OPERATIONS)


def _ready_to_erase(hole: Tensor, seed: int, channels: int) -> dict:
    """Draw standard normal noise on the CPU, as many numbers as the holes have pixels and channels."""
    area = hole[:, 2] * hole[:, 3]
    if not area.any():
        return {}
    noise = torch.randn(int(area.sum()), channels, generator=torch.Generator().manual_seed(seed))
    return {"hole": torch.cat([hole, (area.cumsum(0) - area)[:, None]], 1), "noise": noise}


def filled(x: Tensor, made: dict) -> Tensor:
    """Fill the holes of normalised images [B, C, H, W] with the noise that `ready` made, on the device of both."""
    if "noise" not in made:
        return x
    top, left, height, width, first = made["hole"][:, :, None, None].unbind(1)
    down = torch.arange(x.shape[2], device=x.device)[:, None] - top
    right = torch.arange(x.shape[3], device=x.device) - left
    inside = (0 <= down) & (down < height) & (0 <= right) & (right < width)  # [B, H, W]
    place = (first + down * width + right) * inside
    noise = made["noise"].to(x.dtype).index_select(0, place.flatten()).view(*place.shape, -1)
    return torch.where(inside[:, None], noise.permute(0, 3, 1, 2), x)


# Rectangles

def _draw_box(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw the parts kept, int [B, 4]; the middle where no try fits, which is likely in a narrow image."""
    tall, wide = (side.clamp(min=1) for side in _draw_sides(count, height, width, CROP_SHARE, CROP_RATIO, generator))
    box, fits = _place(tall, wide, (tall <= height) & (wide <= width), height, width, generator)
    tall, wide = min(height, round(width * CROP_RATIO)), min(width, round(height * CROP_RATIO))
    middle = torch.tensor([(height - tall) // 2, (width - wide) // 2, tall, wide])
    return torch.where(fits[:, None], box, middle)


def _draw_hole(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw the rectangles that become noise, int [B, 4]; 0 where no try fits."""
    tall, wide = _draw_sides(count, height, width, ERASED_SHARE, ERASED_RATIO, generator)
    hole, fits = _place(tall, wide, (tall < height) & (wide < width), height, width, generator)
    return hole * fits[:, None]


def _draw_sides(count: int, height: int, width: int, share: tuple[float, float], ratio: float,
                generator: torch.Generator) -> list[Tensor]:
    """Draw heights and widths, int64 [B, TRIES]: shares of the area uniform, ratios of the sides log-uniform."""
    first, second = torch.rand(2, count, TRIES, generator=generator, dtype=torch.float64)
    area = height * width * (share[0] + (share[1] - share[0]) * first)
    ratios = torch.exp(math.log(ratio) * (2 * second - 1))
    return [torch.round(torch.sqrt(side)).long() for side in (area / ratios, area * ratios)]


def _place(tall: Tensor, wide: Tensor, fits: Tensor, height: int, width: int,
           generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Place the first try that fits at random, int [B, 4]; tell whether one does, bool [B]."""
    first = fits.int().argmax(1, keepdim=True)
    tall, wide = tall.gather(1, first), wide.gather(1, first)
    room = torch.cat([height - tall, width - wide], 1)
    corner = (torch.rand(len(tall), 2, generator=generator, dtype=torch.float64) * (room + 1)).long()
    return torch.cat([corner, tall, wide], 1), fits.any(1)


# Resizing

def _ready_to_resize(box: Tensor, size: tuple[int, int]) -> dict:
    top, left, height, width = box.mT
    first_row, row_weights = _weights(top, height, size[0])
    first_column, column_weights = _weights(left, width, size[1])
    return {"first_row": first_row, "row_weights": row_weights,
            "first_column": first_column, "column_weights": column_weights}


def _resized(images: Tensor, made: dict) -> Tensor:
    """Resize a part of each image, bicubic and antialiased: uint8 [B, C, H, W] -> uint8 [B, C, rows, columns].

    PIL's arithmetic to the bit: weights in whole numbers, sums in int32, columns first, 8 bits in between. Where a part
    shrinks PIL 13 may take the rows first, which rounds differently; older ones do not.
    """
    names = ("first_column", "column_weights", "first_row", "row_weights")
    together = CHUNK if images.device.type == "cpu" else len(images)
    parts = []
    for part, *across, row, weights in zip(*(tensor.split(together) for tensor in (images, *map(made.get, names)))):
        parts.append(_resampled(_resampled(part.mT, *across).mT, row, weights))
    return torch.cat(parts)


def _resampled(images: Tensor, first: Tensor, weights: Tensor) -> Tensor:
    """Compute rows as weighted sums of rows: uint8 [B, C, H, W] -> uint8 [B, C, new, W]."""
    (batch, channels, height, width), device = images.shape, images.device
    rows = images.int().flatten(0, 2)
    above = height * torch.arange(batch * channels, device=device).view(batch, channels, 1)
    shape = (batch, channels, first.shape[1], width)
    sums = torch.full(shape, 1 << (BITS - 1), dtype=torch.int32, device=device)  # to round
    for k in range(weights.shape[2]):
        index = above + (first + k).clamp(max=height - 1)[:, None]
        sums.addcmul_(rows.index_select(0, index.flatten()).view(shape), weights[:, None, :, k, None])
    return (sums >> BITS).clamp(0, 255).to(torch.uint8)


def _weights(start: Tensor, length: Tensor, new: int) -> tuple[Tensor, Tensor]:
    """Return the first source pixel of each new one, int64 [B, new], and weights, int32 [B, new, taps], units of 2^-22.

    They resize a row's part of `length` pixels to `new`, computed on the CPU, in PIL's order.
    """
    scale = length.double()[:, None, None] / new
    wide = scale.clamp(min=1)  # when shrinking, the kernel is as much wider: antialiasing
    centre = operations.centres(new, "cpu")[:, None] * scale
    first = (centre - 2 * wide + 0.5).floor().clamp(min=0)
    taps = first + torch.arange(math.ceil(4 * wide.max()) + 1)
    weights = _kernel((taps + 0.5 - centre) * (1 / wide)) * (taps < length[:, None, None])
    weights = weights / weights.sum(2, keepdim=True)
    whole = torch.round(weights.abs() * 2**BITS).copysign(weights)
    return (start[:, None] + first[..., 0]).long(), whole.int()


def _kernel(x: Tensor) -> Tensor:
    """Evaluate PIL's cubic of resizing, a = -0.5."""
    x = x.abs()
    far = -0.5 * (((x - 5) * x + 8) * x - 4)
    return torch.where(x < 1, (1.5 * x - 2.5) * x * x + 1, far.masked_fill(x >= 2, 0))


# RandAugment: uint8 [G, C, H, W] and one value an image, float64 [G] on the device, to uint8 [G, C, H, W].

NAMES = ("autocontrast", "equalize", "invert", "posterize", "solarize", "colour", "contrast", "brightness", "sharpness",
         "rotate", "solarize_add", "shear_x", "shear_y", "translate_x", "translate_y")  # `draw` draws places in it


def chosen(drawn: dict) -> list[list[tuple[str, float]]]:
    """Choose two operations and values of each image; "" stands for none."""
    slots = []
    for rows in zip(*(drawn[key].mT.tolist() for key in ("operation", "applies", "level", "sign"))):
        slots.append([(NAMES[which], magnitude(NAMES[which], level, sign)) if applies else ("", 0.0)
                      for which, applies, level, sign in zip(*rows)])
    return slots


def magnitude(name: str, level: float, sign: int = 1) -> float:
    """Return an operation's value at a level from 0 to 10, with a sign (+1 or -1) where it has one; 0 if it has none.

    Units: degrees, rows a column or columns a row, shares of a side, changes of a factor of 1; bits kept, the smallest
    inverted level, the amount added to dark pixels.

    >>> [magnitude(name, 9, -1) for name in ("rotate", "posterize", "solarize", "solarize_add")]
    [-27.0, 1, 26, 99]
    """
    share = level / TOP_LEVEL
    whole = {"posterize": 4 - int(4 * share), "solarize": 256 - int(256 * share), "solarize_add": int(110 * share)}
    return whole[name] if name in whole else sign * share * RANGES.get(name, 0.0)


RANGES = {  # largest magnitude
    "rotate": 30.0, "shear_x": 0.3, "shear_y": 0.3, "translate_x": 0.45, "translate_y": 0.45,
    "colour": 0.9, "contrast": 0.9, "brightness": 0.9, "sharpness": 0.9,
}


def _fill(images: Tensor) -> Tensor:
    values = FILL if images.shape[1] == 3 else GREY_FILL
    return pixels.constant(values, torch.uint8, images.device)[:, None, None]


def affine(images: Tensor, matrix: Tensor) -> Tensor:
    """Read pixels at the positions of a matrix [G, 6], bicubic as in PIL."""
    (_, channels, height, width), device = images.shape, images.device
    a, b, c, d, e, f = matrix[..., None, None].unbind(1)
    x, y = operations.centres(width, device), operations.centres(height, device)[:, None]
    column, row = a * x + b * y + c, d * x + e * y + f  # [G, H, W]
    (columns, right), (rows, down) = operations.neighbours(column, width), operations.neighbours(row, height)
    index = (rows[:, :, None] * width + columns[:, None]).flatten(1)[:, None].expand(-1, channels, -1)
    near = images.flatten(2).gather(2, index).double().view(-1, channels, 4, 4, height, width)
    lines = operations.cubic(near.unbind(3), right[:, None, None])
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    turned = operations.to_uint8(operations.cubic(lines.unbind(2), down[:, None]))
    return torch.where(inside[:, None], turned, _fill(images))


MATRICES = {  # of a value an image, float64 [G], and of the height and width of the images
    "rotate": operations.rotation,
    "shear_x": lambda slope, height, width: operations.identity_but("b", slope),
    "shear_y": lambda slope, height, width: operations.identity_but("d", slope),
    "translate_x": lambda share, height, width: operations.identity_but("c", share * width),
    "translate_y": lambda share, height, width: operations.identity_but("f", share * height),
}


# Those that a CPU has rather than `affine`: they read four pixels and not sixteen.

def shear_y(images: Tensor, slope: Tensor) -> Tensor:
    return operations.shear_y(images, slope, _fill(images))


def shear_x(images: Tensor, slope: Tensor) -> Tensor:
    return shear_y(images.mT, slope).mT


def translate_y(images: Tensor, share: Tensor) -> Tensor:
    """Move the image up by a share of its height, bicubic as in PIL."""
    height, device = images.shape[-2], images.device
    shift = (share * height)[:, None, None]
    return operations.bicubic_rows(images, shift + operations.centres(height, device)[:, None], _fill(images))


def translate_x(images: Tensor, share: Tensor) -> Tensor:
    return translate_y(images.mT, share).mT


def solarize_add(images: Tensor, more: Tensor) -> Tensor:
    """Add to all pixels below 128."""
    more = more.int()[:, None, None, None] * (images < 128)
    return (images + more).clamp(max=255).to(torch.uint8)


OPERATIONS = {name: operations.OPERATIONS[name] for name in NAMES if name in operations.OPERATIONS} | {
    f.__name__: f for f in (affine, solarize_add, shear_x, shear_y, translate_x, translate_y)}
