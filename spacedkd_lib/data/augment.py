"""Augmentation of a whole batch at once, per sample, with the very pixels that PIL gives one image at a time.

`draw` draws a batch's parameters on the CPU; `ready` makes of them, still there, what `changed` needs on the device
that holds the images; `moved` brings it there in one copy. So a GPU neither waits nor computes a cosine.
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

MAX_ANGLE = 15.0  # degrees; released online program
CROP_FILL = 128  # grey; released self-KD program (the online program fills with 0)

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
    """Magnitude of an AutoAugment operation at a level from 0 to 9, without its sign; 0 if it has none.

    >>> magnitude("rotate", 3), magnitude("posterize", 7), magnitude("invert", 0)
    (10.0, 5, 0.0)
    """
    first, last = RANGES.get(name, (0.0, 0.0))
    value = first + (last - first) * level / 9
    return round(value) if name == "posterize" else value


def padding(height: int) -> int:
    """Pixels of padding before a random crop: 4 (released programs); below 32 rows in proportion (ours).

    >>> padding(32), padding(16), padding(64)
    (4, 2, 4)
    """
    return max(1, min(4, 4 * height // 32))


def draw(augment: str, count: int, height: int, width: int,
         generator: torch.Generator) -> dict[str, Tensor]:
    """The random parameters of `count` images, on the CPU, one row an image; `augmented` applies them.

    Returns:
        {} for "none"; else shift int [B, 2] (rows, columns; the crop's corner relative to the image's), flip
        bool [B], and: for "crop_flip_rotate", angle float64 [B], degrees; for AutoAugment with cutout, policy
        int [B], chance float [B, 2], sign int [B, 2] (+1 or -1), centre int [B, 2] (row, column), and the names of the
        operations that have a sign.
    """
    if augment == "none":
        return {}
    pad = padding(height)
    drawn = {"shift": torch.randint(-pad, pad + 1, (count, 2), generator=generator),
             "flip": torch.rand(count, generator=generator) < (0 if augment == "crop" else 0.5)}
    if augment == "crop_flip_rotate":
        drawn["angle"] = MAX_ANGLE * (2 * torch.rand(count, generator=generator, dtype=torch.float64) - 1)
    if augment.startswith("autoaugment"):
        drawn["signed"] = SIGNED + ("rotate",) * (augment == "autoaugment_two_sided_cutout")
        drawn["policy"] = torch.randint(len(POLICY), (count,), generator=generator)
        drawn["chance"] = torch.rand(count, 2, generator=generator)
        drawn["sign"] = 2 * torch.randint(2, (count, 2), generator=generator) - 1
        drawn["centre"] = torch.stack([torch.randint(size, (count,), generator=generator)
                                       for size in (height, width)], dim=1)
    return drawn


def augmented(images: Tensor, drawn: dict[str, Tensor]) -> Tensor:
    """Applies what `draw` drew: uint8 [B, C, H, W] -> uint8 [B, C, H, W]."""
    return changed(images, moved(ready(drawn, *images.shape[-2:]), images.device))


def ready(drawn: dict[str, Tensor], height: int, width: int) -> dict:
    """What `changed` needs to apply `drawn`, computed on the CPU; `moved` moves it."""
    if "shift" not in drawn:
        return {}
    made = {"shift": drawn["shift"].int(), "flip": drawn["flip"].int()}
    if "angle" in drawn:
        made["turn"] = fixed_point(rotation(drawn["angle"], height, width))
    if "policy" in drawn:
        made |= {"centre": drawn["centre"]} | grouped(chosen(drawn), height, width, MATRICES)
    return made


def moved(made: dict, device: torch.device) -> dict:
    """The tensors of `made` on `device`, in one copy that nobody waits for; on the CPU as they are.

    Each copy's bytes are pinned afresh. Torch's allocator of pinned memory gives a block away again only when the
    copies out of it are done, so nothing is overwritten under way.
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
    """A tensor that is made once a device: to make it again would wait for a GPU. Do not write into it."""
    return torch.tensor(values, dtype=dtype, device=device)


def changed(images: Tensor, made: dict) -> Tensor:
    """Applies what `ready` made, on the device of both."""
    if "shift" not in made:
        return images
    if "centre" not in made:
        return crop_flip_rotate(images, made["shift"], made["flip"], made.get("turn"))
    images = crop_flip_rotate(images, made["shift"], made["flip"], fill=CROP_FILL)
    return cutout(operated(images, made, OPERATIONS), made["centre"])


def crop_flip_rotate(images: Tensor, shift: Tensor, flip: Tensor, turn: Tensor | None = None,
                     fill: int = 0) -> Tensor:
    """Pads with `fill`, crops, flips left to right and rotates: three maps of pixel indices, one gather.

    Args:
        shift, flip, turn: int32 [B, 2], [B] and [B, 6], as `ready` makes them.
    """
    (height, width), device = images.shape[-2:], images.device
    down, right = shift[:, :, None, None].unbind(1)
    mirror = flip[:, None, None]
    if turn is None:
        row, column, beyond = _span(height, device)[:, None], _span(width, device), 0
    else:
        row, column = _source(turn, height, width)
        # Outside the crop is `fill`, even where the image goes on: sign bits make such rows -1.
        beyond = (row | column | (height - 1 - row) | (width - 1 - column)) >> 31
    column = column * (1 - 2 * mirror) + (mirror * (width - 1) + right)
    return _take(images, (row + down) | beyond, column, fill)


# Operations that differ from image to image: two in turn, each of those images that share it

def chosen(drawn: dict) -> list[list[tuple[str, float]]]:
    """AutoAugment's two operations and their values, image by image: those of its sub-policy whose chance lies below
    their probability; "" stands for none."""
    slots, signs = [], drawn["sign"].tolist()
    chances, rows = drawn["chance"].tolist(), [POLICY[row] for row in drawn["policy"].tolist()]
    for slot in range(2):
        slots.append([])
        for row, chance, sign in zip(rows, chances, signs):
            name, probability, level = row[slot]
            value = magnitude(name, level) * (sign[slot] if name in drawn["signed"] else 1)
            slots[-1].append((name, value) if chance[slot] < probability else ("", 0.0))
    return slots


def grouped(chosen: list[list[tuple[str, float]]], height: int, width: int, matrices: dict) -> dict:
    """Sorts a batch by operation, for `operated`; on the CPU.

    Args:
        chosen: for each slot an operation ("" for none) and its value, image by image.
        matrices: operations that become one, "affine", and what makes a matrix [G, 6] of their values.

    Returns:
        groups, for each slot how many images have which operation; order, the images sorted, and back, where each
        then is, int64 [slots, B]; values of the sorted images, float64 [slots, B, 6]: a matrix, or a value and zeros.
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
    """The images after the operations that `grouped` sorted: uint8 [B, C, H, W] -> uint8 [B, C, H, W]."""
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


def cutout(images: Tensor, centre: Tensor) -> Tensor:
    """Blackens a square round `centre`, clipped at the edges; its side is half the height, 16 of 32 pixels.

    Sources: 16 pixels, the released self-KD program; half of another height, ours.
    """
    (height, width), half = images.shape[-2:], images.shape[-2] // 4
    row, column = centre[:, :, None, None].unbind(1)
    down, right = _span(height, images.device)[:, None] - row, _span(width, images.device) - column
    hole = (-half <= down) & (down < half) & (-half <= right) & (right < half)
    return images * ~hole[:, None]


# Geometry. A matrix is float64 [B, 6] (a to f): output (x, y) reads input (ax + by + c, dx + ey + f).

def rotation(degrees: Tensor, height: int, width: int) -> Tensor:
    """PIL's matrix of a counter-clockwise rotation about the centre of the image."""
    radians = -torch.deg2rad(degrees.double())
    cos, sin = torch.cos(radians), torch.sin(radians)
    x, y = width / 2, height / 2
    return torch.stack([cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y], dim=1)


def identity_but(entry: str, value: Tensor) -> Tensor:
    """Matrices that change nothing but for one entry, "a" to "f", float64 [B]."""
    matrices = torch.tensor([1.0, 0, 0, 0, 1, 0], dtype=torch.float64).repeat(len(value), 1)
    matrices[:, "abcdef".index(entry)] = value
    return matrices


def fixed_point(matrix: Tensor) -> Tensor:
    """What `_source` reads of a matrix, int32 [B, 6], in units of 2^-16."""
    a, b, c, d, e, f = matrix.unbind(1)
    steps = torch.stack([a, b, c + (a + b) / 2, d, e, f + (d + e) / 2], dim=1)  # from pixel centre to pixel centre
    return torch.floor(steps * 65536 + 0.5).int()


def _source(fixed: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Row and column, int32 [B, H, W], that PIL's nearest neighbour reads for every output pixel."""
    a, b, c, d, e, f = fixed[..., None, None].unbind(1)
    x, y = _span(width, fixed.device), _span(height, fixed.device)[:, None]
    return (f + x * d + y * e) >> 16, (c + x * a + y * b) >> 16


def _span(size: int, device) -> Tensor:
    return torch.arange(size, dtype=torch.int32, device=device)


def _take(images: Tensor, row: Tensor, column: Tensor, fill: int) -> Tensor:
    """images[b, :, row, column], `fill` where that lies outside; row and column broadcast to [B, H, W]."""
    batch, channels, height, width = images.shape
    pixels = F.pad(images, (1, 1, 1, 1), value=fill).flatten(2)  # what lies outside is read from this frame
    index = (row.clamp(-1, height) + 1) * (width + 2) + (column.clamp(-1, width) + 1)
    index = index.long().expand(batch, -1, -1).flatten(1)[:, None].expand(-1, channels, -1)
    return pixels.gather(2, index).view(images.shape)


# AutoAugment's operations: uint8 [G, C, H, W] and one value an image, float64 [G] on the device, to uint8 [G, C, H, W].

def affine(images: Tensor, matrix: Tensor) -> Tensor:
    """Reads the nearest pixels; the matrix is in fixed point, [G, 6]."""
    return _take(images, *_source(matrix.int(), *images.shape[-2:]), CROP_FILL)


MATRICES = {  # of a value an image, float64 [G], and of the height and width of the images
    "rotate": lambda degrees, height, width: fixed_point(rotation(degrees, height, width)),
    "translate_x": lambda share, height, width: fixed_point(identity_but("c", share * width)),
    "translate_y": lambda share, height, width: fixed_point(identity_but("f", share * height)),
}


def shear_y(images: Tensor, slope: Tensor, fill: int | Tensor = CROP_FILL) -> Tensor:
    """Moves each column up by its distance from the left edge times `slope`, bicubic as in PIL."""
    x, y = (centres(size, images.device) for size in (images.shape[-1], images.shape[-2]))
    return bicubic_rows(images, slope[:, None, None] * x + y[:, None], fill)


def bicubic_rows(images: Tensor, row: Tensor, fill: int | Tensor) -> Tensor:
    """Reads each pixel of uint8 [G, C, H, W] from its column at `row`, float64 [G, H, W] or [G, H, 1], in pixels from
    the upper edge; `fill` (one value, or uint8 [C, 1, 1]) where that lies outside."""
    _, channels, height, width = images.shape
    near, d = neighbours(row, height)
    index = near.flatten(1, 2)[:, None].expand(-1, channels, -1, width)
    taps = images.gather(2, index).double().unflatten(2, (4, height))
    inside = ((row >= 0) & (row < height))[:, None]
    return torch.where(inside, to_uint8(cubic(taps.unbind(2), d[:, None])), fill)


def centres(size: int, device) -> Tensor:
    """Centres of the pixels of a row of `size`: float64 [size]."""
    return _span(size, device).double() + 0.5


def neighbours(position: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The four pixels of a row of `size` round a position (the edge repeats itself), int64 [G, 4, H, W], and the way
    from the second, [G, H, W]."""
    first = (position - 0.5).floor()
    steps = torch.arange(-1, 3, device=position.device)[:, None, None]
    return (first.long()[:, None] + steps).clamp(0, size - 1), position - 0.5 - first


def cubic(taps: tuple[Tensor, ...], d: Tensor) -> Tensor:
    """PIL's cubic through four neighbours (a = -1), at the share d of the way from the second to the third."""
    p, q, r, s = taps
    return q + d * (r - p + d * (2 * (p - q) + r - s + d * (q - p + s - r)))


def to_uint8(values: Tensor) -> Tensor:
    return values.clamp(0, 255).to(torch.uint8)  # PIL truncates, it does not round


def _blend(base: Tensor, images: Tensor, change: Tensor) -> Tensor:
    """From `base` (factor 0) to the image (factor 1) and beyond, with factor 1 + change, in PIL's float32."""
    factor = (1 + change).float()[:, None, None, None]
    return to_uint8(base + factor * (images.float() - base))


def luma(images: Tensor) -> Tensor:
    """PIL's grey version, int32 [G, 1, H, W]; of a grey image, itself."""
    if images.shape[1] == 1:
        return images.int()
    red, green, blue = images.int().split(1, dim=1)
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


def brightness(images: Tensor, change: Tensor) -> Tensor:
    return _blend(torch.zeros((), device=images.device), images, change)


def colour(images: Tensor, change: Tensor) -> Tensor:
    """Towards grey or away from it; a grey image stays as it is."""
    return _blend(luma(images).float(), images, change)


def contrast(images: Tensor, change: Tensor) -> Tensor:
    """Towards the image's mean grey or away from it."""
    count = images.shape[-2] * images.shape[-1]
    mean = (2 * luma(images).sum((1, 2, 3), keepdim=True) + count) // (2 * count)  # rounded, in integers
    return _blend(mean.float(), images, change)


def sharpness(images: Tensor, change: Tensor) -> Tensor:
    """Towards a smoothed image (3 x 3, centre weight 5 of 13; the outermost pixels stay) or away from it."""
    wide = images.int()
    rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    inner = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * wide[:, :, 1:-1, 1:-1]
    wide[:, :, 1:-1, 1:-1] = (2 * inner + 13) // 26
    return _blend(wide.float(), images, change)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    kept = (255 << (8 - bits.int())).to(torch.uint8)  # whole numbers: a GPU may round a power
    return images & kept[:, None, None, None]


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    bright = images >= threshold[:, None, None, None]
    return images ^ (255 * bright.to(torch.uint8))  # i ^ 255 = 255 - i


def invert(images: Tensor, _: Tensor) -> Tensor:
    return 255 - images


def autocontrast(images: Tensor, _: Tensor) -> Tensor:
    """Stretches each channel to 0 ... 255; a channel of one grey level stays as it is."""
    low, high = (extreme(images, dim=(2, 3), keepdim=True).double() for extreme in (torch.amin, torch.amax))
    flat = high == low
    low, span = low.masked_fill(flat, 0), (high - low).masked_fill(flat, 255)
    scale = torch.full_like(span, 255) / span  # 255 / span would multiply by the rounded reciprocal
    return to_uint8(images * scale + -low * scale)


def equalize(images: Tensor, _: Tensor) -> Tensor:
    """Flattens each channel's histogram; a channel with too few pixels for a step of one stays as it is."""
    levels = images.flatten(2).flatten(0, 1)  # [G * C, H * W]
    below = (_below_by_counting if images.device.type == "cpu" else _below_by_sorting)(levels)
    levels = levels.long()
    last = levels.shape[1] - below.gather(1, levels.amax(1, keepdim=True))
    step = (levels.shape[1] - last) // 255
    table = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=images.device)).to(torch.uint8)
    return table.gather(1, levels).view_as(images)


def _below_by_counting(levels: Tensor) -> Tensor:
    """How many pixels of each row are below each grey level: uint8 [rows, pixels] -> int64 [rows, 256]."""
    bins = levels.long() + 256 * torch.arange(len(levels), device=levels.device)[:, None]
    histogram = torch.bincount(bins.flatten(), minlength=256 * len(levels)).view(-1, 256)
    return histogram.cumsum(1) - histogram


def _below_by_sorting(levels: Tensor) -> Tensor:
    """The same, for a GPU, which `bincount` would make wait."""
    greys = torch.arange(256, dtype=torch.uint8, device=levels.device).repeat(len(levels), 1)
    return torch.searchsorted(levels.sort(1).values, greys)


OPERATIONS = {f.__name__: f for f in (affine, shear_y, brightness, colour, contrast, sharpness, posterize, solarize,
                                      invert, autocontrast, equalize)}
