"""Corrupted images."""

from __future__ import annotations

import io
from typing import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..data.batches import generator
from ..errors import InputError, nearest

AT_ONCE = 1000  # images in work at a time: bounds the memory


def corrupt(images: Tensor, name: str, severity: int, seed: int) -> Tensor:
    """Corrupted images: uint8 [N, C, H, W] -> uint8 [N, C, H, W], truncated to 8 bits as in CIFAR-10-C.

    Args:
        severity: 1 (weak) to 5; `CORRUPTIONS` says what it means.
        seed: of the noise, which is drawn on the CPU for the whole stack, hence the same on every device.

    Raises:
        InputError: images of another type or shape, an unknown name or severity.

    >>> corrupt(torch.full((1, 1, 8, 8), 100, dtype=torch.uint8), "brightness", 1, seed=0).unique().item()
    112
    """
    check_images(images)
    if name not in CORRUPTIONS:
        raise InputError(nearest("corruption", name, CORRUPTIONS))
    if severity not in range(1, 6):  # 0 would be read as the last
        raise InputError(f"severity = {severity!r} does not exist: give a whole number from 1 (weak) to 5.")
    drawn, (operation, values) = generator(seed, "corruption", name, severity), CORRUPTIONS[name]
    return torch.cat([operation(part, values[severity - 1], drawn) for part in images.split(AT_ONCE)])


def _unit(images: Tensor) -> Tensor:
    return images.double() / 255


def _levels(x: Tensor) -> Tensor:
    """Truncate to levels, as the reference; a value that only rounding put below a level keeps it (ours)."""
    return (255 * x + 1e-6).clamp(0, 255).to(torch.uint8)


# Each: uint8 [B, C, H, W], the severity's value and a CPU generator, to uint8 [B, C, H, W].

def gaussian_noise(images: Tensor, deviation: float, drawn: torch.Generator) -> Tensor:
    """Add Gaussian noise of this standard deviation, in [0, 1], drawn on the CPU."""
    noise = torch.randn(images.shape, generator=drawn, dtype=torch.float64).to(images.device)
    return _levels(_unit(images) + deviation * noise)


def shot_noise(images: Tensor, photons: float, drawn: torch.Generator) -> Tensor:
    """Poisson counts, as of light."""
    return _levels(torch.poisson(_unit(images).cpu() * photons, generator=drawn).to(images.device) / photons)


def impulse_noise(images: Tensor, share: float, drawn: torch.Generator) -> Tensor:
    """Salt and pepper, each channel apart."""
    hit, salt = torch.rand(2, *images.shape, generator=drawn, dtype=torch.float64).to(images.device)
    return torch.where(hit <= share, 255 * (salt <= 0.5), images).to(torch.uint8)


def gaussian_blur(images: Tensor, deviation: float, drawn: torch.Generator) -> Tensor:
    """Blur with a Gaussian kernel cut at four deviations; edge pixels are repeated.

    Above 32 rows the deviation grows in proportion (ours); below, it stays in pixels, because a kernel far narrower
    than a pixel would change nothing.
    """
    deviation *= max(1, images.shape[-2] / 32)
    reach = int(4 * deviation + 0.5)
    kernel = torch.arange(-reach, reach + 1, dtype=torch.float64, device=images.device).div(deviation)
    kernel = kernel.square().mul(-0.5).exp()
    kernel /= kernel.sum()
    x = F.pad(_unit(images), (reach,) * 4, mode="replicate").flatten(0, 1)[:, None]
    x = F.conv2d(F.conv2d(x, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return _levels(x.view(images.shape))


def brightness(images: Tensor, shift: float, drawn: torch.Generator) -> Tensor:
    """HSV's value, the largest channel, shifted: hue and saturation stay, so channels keep their ratios."""
    x = _unit(images)
    value = x.amax(dim=1, keepdim=True)
    ratio = torch.where(value > 0, x / value, 1.0)  # black has no hue: it turns grey
    return _levels(ratio * (value + shift).clamp(max=1))


def contrast(images: Tensor, factor: float, drawn: torch.Generator) -> Tensor:
    """Towards each channel's mean."""
    x = _unit(images)
    mean = x.mean(dim=(2, 3), keepdim=True)
    return _levels((x - mean) * factor + mean)


def pixelate(images: Tensor, share: float, drawn: torch.Generator) -> Tensor:
    """Shrunk and enlarged again with PIL's box filter, to the pixel. Of 8 rows it keeps 7, 7, 6, 6 and 5; of 1, 1."""
    kept, x = [(size, max(int(size * share), 1)) for size in images.shape[-2:]], images.double()
    rows, columns = (_boxes(size, left, images.device) for size, left in kept)
    small = _rounded(rows @ _rounded(x @ columns.mT))
    rows, columns = (_boxes(left, size, images.device) for size, left in kept)
    return _rounded(rows @ _rounded(small @ columns.mT)).to(torch.uint8)


def _boxes(old: int, new: int, device) -> Tensor:
    """Return the matrix [new, old] that averages the old pixels whose centres lie in a new one's box, as PIL does."""
    scale = old / new
    centre = (torch.arange(new, dtype=torch.float64, device=device)[:, None] + 0.5) * scale
    offset = (torch.arange(old, dtype=torch.float64, device=device) + 0.5 - centre) / max(scale, 1)
    inside = ((offset > -0.5) & (offset <= 0.5)).double()
    return inside / inside.sum(dim=1, keepdim=True)


def _rounded(x: Tensor) -> Tensor:
    return (x + 0.5).floor()  # PIL rounds after each direction


def jpeg_compression(images: Tensor, quality: float, drawn: torch.Generator) -> Tensor:
    """PIL's encoder with its own settings; the pixels depend on its JPEG library."""
    decoded = [_through_jpeg(image, quality) for image in images.permute(0, 2, 3, 1).cpu().numpy()]
    pixels = np.stack(decoded).reshape(len(images), *images.shape[2:], -1).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(images.device)


def _through_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


# Name -> the function, and what severities 1 to 5 mean.
# Source: make_cifar_c.py (github.com/hendrycks/robustness, commit ca36008).
CORRUPTIONS: dict[str, tuple[Callable, tuple[float, ...]]] = {
    "gaussian_noise": (gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),  # standard deviation, of pixels in [0, 1]
    "shot_noise": (shot_noise, (500, 250, 100, 75, 50)),  # photons of a white pixel
    "impulse_noise": (impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),  # share of the values that turn black or white
    "gaussian_blur": (gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1)),  # standard deviation, pixels
    "brightness": (brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),  # added to HSV's value, in [0, 1]
    "contrast": (contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),  # factor of the distance from the mean
    "pixelate": (pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),  # share of the height and width that is kept
    "jpeg_compression": (jpeg_compression, (80, 65, 58, 50, 40)),  # quality
}


def check_images(images: Tensor, labels: Tensor | None = None) -> None:
    """Raise InputError unless images are uint8 [N, C, H, W] of one or three channels, and labels int64 [N]."""
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
        raise InputError(f"Images of type {images.dtype} and shape {list(images.shape)} cannot be changed: give "
                         "torch.uint8 of shape [N, C, H, W] with C = 1 (grey) or 3 (RGB).")
    if labels is not None and (labels.shape != (len(images),) or labels.dtype != torch.int64):
        raise InputError(f"Labels of type {labels.dtype} and shape {list(labels.shape)} do not fit {len(images)} "
                         "images: give one label of torch.int64 an image.")
