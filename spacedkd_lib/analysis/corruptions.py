"""Corrupted images: made here, or CIFAR-C's files."""

from __future__ import annotations

import hashlib
import io
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..data.batches import generator
from ..errors import InputError, nearest

# What severities 1 to 5 mean. Source: make_cifar_c.py (github.com/hendrycks/robustness, commit ca36008).
SEVERITIES: dict[str, tuple[float, ...]] = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),  # standard deviation, of pixels in [0, 1]
    "shot_noise": (500, 250, 100, 75, 50),  # photons of a white pixel
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),  # share of the values that turn black or white
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1),  # standard deviation, pixels
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),  # added to HSV's value, in [0, 1]
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),  # factor of the distance from the mean
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),  # share of the height and width that is kept
    "jpeg_compression": (80, 65, 58, 50, 40),  # quality
}
CORRUPTIONS = tuple(SEVERITIES)
AT_ONCE = 1000  # images in work at a time: bounds the memory


# MD5 of the published files, CIFAR-10-C's and CIFAR-100-C's. Source: torch-uncertainty and MIT's rai-toolbox, which
# list the same ones (github.com/ENSTA-U2IS-AI/torch-uncertainty, .../mit-ll-responsible-ai/responsible-ai-toolbox).
_PUBLISHED = """
brightness        0a81ef75e0b523c3383219c330a85d48 f22d7195aecd6abb541e27fca230c171
contrast          3c8262171c51307f916c30a3308235a8 322bb385f1d05154ee197ca16535f71e
defocus_blur      7d1322666342a0702b1957e92f6254bc d923e3d9c585a27f0956e2f2ad832564
elastic_transform 9421657c6cd452429cf6ce96cc412b5f a0792bd6581f6810878be71acedfc65a
fog               7b397314b5670f825465fbcd1f6e9ccd 4efc7ebd5e82b028bdbe13048e3ea564
frost             31f6ab3bce1d9934abfb0cc13656f141 3a39c6823bdfaa0bf8b12fe7004b8117
gaussian_blur     c33370155bc9b055fb4a89113d3c559d 5204ba0d557839772ef5a4196a052c3e
gaussian_noise    ecaf8b9a2399ffeda7680934c33405fd ecc4d366eac432bdf25c024086f5e97d
glass_blur        7361fb4019269e02dbf6925f083e8629 0bf384f38e5ccbf8dd479d9059b913e1
impulse_noise     2090e01c83519ec51427e65116af6b1a 3b3c210ddfa0b5cb918ff4537a429fef
jpeg_compression  2b9cc4c864e0193bb64db8d7728f8187 c851b7f1324e1d2ffddeb76920576d11
labels            c439b113295ed5254878798ffe28fd54 bb4026e9ce52996b95f439544568cdb2
motion_blur       fffa5f852ff7ad299cfe8a7643f090f4 732a7e2e54152ff97c742d4c388c5516
pixelate          0f14f7e2db14288304e1de10df16832f 96c00c60f144539e14cffb02ddbd0640
saturate          1cfae0964219c5102abbb883e538cc56 c0697e9fdd646916a61e9c312c77bf6b
shot_noise        3a7239bb118894f013d9bf1984be7f11 b0a1fa6e1e465a747c1b204b1914048a
snow              bb238de8555123da9c282dea23bd6e55 0237be164583af146b7b144e73b43465
spatter           8a5a3903a7f8f65b59501a6093b4311e 12ccf41d62564d36e1f6a6ada5022728
speckle_noise     ef00b87611792b00df09c0b0237a1e30 e3f215b1a0f9fd9fd6f0d1cf94a7ce99
zoom_blur         6ea8e63f1c5cdee1517533840641641b 0204613400c034a81c4830d5df81cb82
"""
PUBLISHED = {f"{row[0]}.npy": dict(zip(("CIFAR-10-C", "CIFAR-100-C"), row[1:]))
             for row in map(str.split, _PUBLISHED.strip().splitlines())}
FILES = tuple(name.removesuffix(".npy") for name in PUBLISHED if name != "labels.npy")


# Corruptions

def corrupt(images: Tensor, name: str, severity: int, seed: int) -> Tensor:
    """Corrupted images: uint8 [N, C, H, W] -> uint8 [N, C, H, W], truncated to 8 bits as in CIFAR-10-C.

    Args:
        name: one of `CORRUPTIONS`, CIFAR-10-C's names.
        severity: 1 (weak) to 5; `SEVERITIES` says what it means.
        seed: of the noise, which is drawn on the CPU for the whole stack, hence the same on every device.

    Raises:
        InputError: images of another type or shape, an unknown name or severity.

    >>> corrupt(torch.full((1, 1, 8, 8), 100, dtype=torch.uint8), "brightness", 1, seed=0).unique().item()
    112
    """
    check_images(images)
    check_corruption(name, severity, CORRUPTIONS)
    drawn, value = generator(seed, "corruption", name, severity), SEVERITIES[name][severity - 1]
    return torch.cat([OPERATIONS[name](part, value, drawn) for part in images.split(AT_ONCE)])


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
    """Shrunk and enlarged again with PIL's box filter, to the pixel. Of 8 rows it keeps 7, 7, 6, 6 and 5."""
    (height, width), x = images.shape[-2:], images.double()
    rows, columns = (_boxes(size, int(size * share), images.device) for size in (height, width))
    small = _rounded(rows @ _rounded(x @ columns.mT))
    rows, columns = (_boxes(int(size * share), size, images.device) for size in (height, width))
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


OPERATIONS = {f.__name__: f for f in (gaussian_noise, shot_noise, impulse_noise, gaussian_blur, brightness, contrast,
                                      pixelate, jpeg_compression)}


# A user's own CIFAR-10-C or CIFAR-100-C

class Corrupted(NamedTuple):
    """The pictures of one corruption and severity, as published."""

    images: Tensor  # uint8 [10000, 3, 32, 32]
    labels: Tensor  # int64 [10000]
    sha256: dict[str, str]  # of the two files read
    published: str  # "CIFAR-10-C" or "CIFAR-100-C" if both have the MD5 of its files, else ""


def load_corrupted(folder: Path | str, name: str, severity: int, sha256: dict[str, str] | None = None) -> Corrupted:
    """One corruption at one severity from the unpacked CIFAR-10-C.tar or CIFAR-100-C.tar; only these are copied.

    Args:
        folder: holds `<name>.npy`, uint8 [50000, 32, 32, 3], 10,000 images a severity, and `labels.npy`.
        name: one of `FILES`.
        severity: 1 to 5.
        sha256: file name -> what its SHA-256 must be, for both files; None compares nothing.

    Raises:
        InputError: an unknown name or severity; a file that is missing, damaged, of another shape or type, or of
            another SHA-256; labels that differ between severities.
    """
    check_corruption(name, severity, FILES)
    files = [Path(folder) / f"{name}.npy", Path(folder) / "labels.npy"]
    images, labels = _mapped(files[0], (50000, 32, 32, 3)), _mapped(files[1], (50000,))
    if (labels.reshape(5, -1) != labels[:10000]).any():
        raise InputError(f"{files[1]} has other labels for one severity than for another: put the published file in "
                         "its place.")
    digests = {file.name: _digests(file, file.stat().st_size, file.stat().st_mtime_ns) for file in files}
    for file in files:
        expected, (found, _) = (sha256 or {}).get(file.name), digests[file.name]
        if sha256 is not None and found != expected:
            raise InputError(f"{file} has the SHA-256 {found} and {expected} was expected: fetch the file again, or "
                             "correct what is expected.")
    part = slice(10000 * (severity - 1), 10000 * severity)
    published = [place for place in PUBLISHED["labels.npy"]
                 if all(PUBLISHED[file][place] == md5 for file, (_, md5) in digests.items())]
    return Corrupted(torch.from_numpy(np.ascontiguousarray(images[part].transpose(0, 3, 1, 2))),
                     torch.from_numpy(labels[part].astype(np.int64)),
                     {file: digest for file, (digest, _) in digests.items()}, *published or [""])


def _mapped(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Open a .npy file as an array that stays on disk."""
    if not file.is_file():
        raise InputError(f"{file} does not exist: give the folder that CIFAR-10-C.tar or CIFAR-100-C.tar unpacks to.")
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{file} is truncated or damaged ({error}): fetch it again.") from None
    if array.shape != shape or array.dtype != np.uint8:
        raise InputError(f"{file} holds {array.dtype} of shape {list(array.shape)} and must hold uint8 of shape "
                         f"{list(shape)}: give a file of CIFAR-10-C or CIFAR-100-C.")
    return array


@lru_cache
def _digests(file: Path, size: int, changed: int) -> tuple[str, str]:
    """SHA-256 and MD5; a file that keeps its size and time of change is read once for its five severities."""
    with open(file, "rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        return sha256, hashlib.file_digest(stream, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


# Bad input

def check_images(images: Tensor) -> None:
    """Raise InputError unless the images are uint8 [N, C, H, W] of one or three channels."""
    given = (f"{images.dtype} and shape {list(images.shape)}" if isinstance(images, Tensor)
             else f"{type(images).__name__}")
    if (not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.dim() != 4
            or images.shape[1] not in (1, 3) or not len(images)):
        raise InputError(f"Images of type {given} cannot be changed: give a tensor of torch.uint8 of shape "
                         "[N, C, H, W] with C = 1 (grey) or 3 (RGB).")


def check_corruption(name: str, severity: int, allowed: tuple[str, ...]) -> None:
    """Raise InputError for an unknown corruption, or a severity that is not 1 to 5."""
    if name not in allowed:
        raise InputError(nearest("corruption", name, allowed))
    if severity not in (1, 2, 3, 4, 5):
        raise InputError(f"severity = {severity!r} does not exist: give a whole number from 1 (weak) to 5.")
