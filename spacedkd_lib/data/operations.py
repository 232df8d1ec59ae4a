"""Pixel operations of PIL on whole batches, bit for bit."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ANGLE = 15.0  # degrees; released online program
CROP_FILL = 128  # grey; released self-KD program (the online program fills with 0)


def cutout(images: Tensor, centre: Tensor) -> Tensor:
    """Blacken a square round `centre`, clipped at the edges; its side is half the height, 16 of 32 pixels.

    Sources: 16 pixels, the released self-KD program; half of another height, ours.
    """
    (height, width), half = images.shape[-2:], images.shape[-2] // 4
    row, column = centre[:, :, None, None].unbind(1)
    down, right = span(height, images.device)[:, None] - row, span(width, images.device) - column
    hole = (-half <= down) & (down < half) & (-half <= right) & (right < half)
    return images * ~hole[:, None]


# Geometry. A matrix is float64 [B, 6] (a to f): output (x, y) reads input (ax + by + c, dx + ey + f).

def rotation(degrees: Tensor, height: int, width: int) -> Tensor:
    """Return PIL's matrix of a counter-clockwise rotation about the centre of the image."""
    radians = -torch.deg2rad(degrees.double())
    cos, sin = torch.cos(radians), torch.sin(radians)
    x, y = width / 2, height / 2
    return torch.stack([cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y], dim=1)


def identity_but(entry: str, value: Tensor) -> Tensor:
    """Return identity matrices with one entry set, "a" to "f", float64 [B]."""
    matrices = torch.tensor([1.0, 0, 0, 0, 1, 0], dtype=torch.float64).repeat(len(value), 1)
    matrices[:, "abcdef".index(entry)] = value
    return matrices


def fixed_point(matrix: Tensor) -> Tensor:
    """Convert matrices to fixed point for `source_of`: int32 [B, 6], in units of 2^-16."""
    a, b, c, d, e, f = matrix.unbind(1)
    steps = torch.stack([a, b, c + (a + b) / 2, d, e, f + (d + e) / 2], dim=1)  # from pixel centre to pixel centre
    return torch.floor(steps * 65536 + 0.5).int()


def source_of(fixed: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the row and column, int32 [B, H, W], that PIL's nearest neighbour reads for every output pixel."""
    a, b, c, d, e, f = fixed[..., None, None].unbind(1)
    x, y = span(width, fixed.device), span(height, fixed.device)[:, None]
    return (f + x * d + y * e) >> 16, (c + x * a + y * b) >> 16


def span(size: int, device) -> Tensor:
    return torch.arange(size, dtype=torch.int32, device=device)


def take(images: Tensor, row: Tensor, column: Tensor, fill: int) -> Tensor:
    """Gather images[b, :, row, column], or `fill` outside; row and column broadcast to [B, H, W]."""
    batch, channels, height, width = images.shape
    pixels = F.pad(images, (1, 1, 1, 1), value=fill).flatten(2)  # what lies outside is read from this frame
    index = (row.clamp(-1, height) + 1) * (width + 2) + (column.clamp(-1, width) + 1)
    index = index.long().expand(batch, -1, -1).flatten(1)[:, None].expand(-1, channels, -1)
    return pixels.gather(2, index).view(images.shape)


# AutoAugment's operations: uint8 [G, C, H, W] and one value an image, float64 [G] on the device, to uint8 [G, C, H, W].

def affine(images: Tensor, matrix: Tensor) -> Tensor:
    """Read the nearest pixels; the matrix is in fixed point, [G, 6]."""
    return take(images, *source_of(matrix.int(), *images.shape[-2:]), CROP_FILL)


MATRICES = {  # of a value an image, float64 [G], and of the height and width of the images
    "rotate": lambda degrees, height, width: fixed_point(rotation(degrees, height, width)),
    "translate_x": lambda share, height, width: fixed_point(identity_but("c", share * width)),
    "translate_y": lambda share, height, width: fixed_point(identity_but("f", share * height)),
}


def shear_y(images: Tensor, slope: Tensor, fill: int | Tensor = CROP_FILL) -> Tensor:
    """Move each column up by its distance from the left edge times `slope`, bicubic as in PIL."""
    x, y = (centres(size, images.device) for size in (images.shape[-1], images.shape[-2]))
    return bicubic_rows(images, slope[:, None, None] * x + y[:, None], fill)


def bicubic_rows(images: Tensor, row: Tensor, fill: int | Tensor) -> Tensor:
    """Read each pixel of uint8 [G, C, H, W] at `row` of its column, bicubic; `fill` outside.

    row: float64 [G, H, W] or [G, H, 1], pixels from the upper edge. fill: one value, or uint8 [C, 1, 1].
    """
    _, channels, height, width = images.shape
    near, d = neighbours(row, height)
    index = near.flatten(1, 2)[:, None].expand(-1, channels, -1, width)
    taps = images.gather(2, index).double().unflatten(2, (4, height))
    inside = ((row >= 0) & (row < height))[:, None]
    return torch.where(inside, to_uint8(cubic(taps.unbind(2), d[:, None])), fill)


def centres(size: int, device) -> Tensor:
    """Return the pixel centres of a row of `size`: float64 [size]."""
    return span(size, device).double() + 0.5


def neighbours(position: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the four pixels round each position, int64 [G, 4, H, W], and the way from the second, [G, H, W]."""
    first = (position - 0.5).floor()
    steps = torch.arange(-1, 3, device=position.device)[:, None, None]
    return (first.long()[:, None] + steps).clamp(0, size - 1), position - 0.5 - first


def cubic(taps: tuple[Tensor, ...], d: Tensor) -> Tensor:
    """Interpolate by PIL's cubic (a = -1) of four neighbours, at share d of the way from the second to the third."""
    p, q, r, s = taps
    return q + d * (r - p + d * (2 * (p - q) + r - s + d * (q - p + s - r)))


def to_uint8(values: Tensor) -> Tensor:
    return values.clamp(0, 255).to(torch.uint8)  # PIL truncates, it does not round


def _blend(base: Tensor, images: Tensor, change: Tensor) -> Tensor:
    """Blend from `base` (factor 0) to the image (factor 1) and beyond, with factor 1 + change, in PIL's float32."""
    factor = (1 + change).float()[:, None, None, None]
    return to_uint8(base + factor * (images.float() - base))


def luma(images: Tensor) -> Tensor:
    """Convert to PIL's grey, int32 [G, 1, H, W]; a grey image stays as it is."""
    if images.shape[1] == 1:
        return images.int()
    red, green, blue = images.int().split(1, dim=1)
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


def brightness(images: Tensor, change: Tensor) -> Tensor:
    return _blend(torch.zeros((), device=images.device), images, change)


def colour(images: Tensor, change: Tensor) -> Tensor:
    """Blend towards grey or away from it; a grey image stays as it is."""
    return _blend(luma(images).float(), images, change)


def contrast(images: Tensor, change: Tensor) -> Tensor:
    """Blend towards the image's mean grey or away from it."""
    count = images.shape[-2] * images.shape[-1]
    mean = (2 * luma(images).sum((1, 2, 3), keepdim=True) + count) // (2 * count)  # rounded, in integers
    return _blend(mean.float(), images, change)


def sharpness(images: Tensor, change: Tensor) -> Tensor:
    """Blend towards a smoothed image (3 x 3, centre weight 5 of 13; the outermost pixels stay) or away from it."""
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
    """Stretch each channel to 0 ... 255; a channel of one grey level stays as it is."""
    low, high = (extreme(images, dim=(2, 3), keepdim=True).double() for extreme in (torch.amin, torch.amax))
    flat = high == low
    low, span = low.masked_fill(flat, 0), (high - low).masked_fill(flat, 255)
    scale = torch.full_like(span, 255) / span  # 255 / span would multiply by the rounded reciprocal
    return to_uint8(images * scale + -low * scale)


def equalize(images: Tensor, _: Tensor) -> Tensor:
    """Flatten each channel's histogram; a channel with too few pixels for a step of one stays as it is."""
    levels = images.flatten(2).flatten(0, 1)  # [G * C, H * W]
    below = (_below_by_counting if images.device.type == "cpu" else _below_by_sorting)(levels)
    levels = levels.long()
    last = levels.shape[1] - below.gather(1, levels.amax(1, keepdim=True))
    step = (levels.shape[1] - last) // 255
    table = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=images.device)).to(torch.uint8)
    return table.gather(1, levels).view_as(images)


def _below_by_counting(levels: Tensor) -> Tensor:
    """Count the pixels of each row below each grey level: uint8 [rows, pixels] -> int64 [rows, 256]."""
    bins = levels.long() + 256 * torch.arange(len(levels), device=levels.device)[:, None]
    histogram = torch.bincount(bins.flatten(), minlength=256 * len(levels)).view(-1, 256)
    return histogram.cumsum(1) - histogram


def _below_by_sorting(levels: Tensor) -> Tensor:
    """Count as `_below_by_counting` on a GPU, which `bincount` would make wait."""
    greys = torch.arange(256, dtype=torch.uint8, device=levels.device).repeat(len(levels), 1)
    return torch.searchsorted(levels.sort(1).values, greys)


OPERATIONS = {f.__name__: f for f in (affine, shear_y, brightness, colour, contrast, sharpness, posterize, solarize,
                                      invert, autocontrast, equalize)}
