"""Two image sets without a download: scanned digits, and characters drawn with matplotlib's bundled fonts.

Both are small and noisy on purpose: they train in seconds on a CPU, and methods still differ on them. `RandomState`
seeds every random draw, because NumPy promises never to change its stream.
Arrays only, no torch. Shape legend: N images, C H W image. Taught in notebooks/01_data.
"""

from __future__ import annotations

import functools
import string
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

DIGIT_NOISE = 0.25  # ours: share of the pixel range; without it every method is above 95%
CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
GLYPH_PIXELS = 16
GLYPH_NOISE = 0.2  # ours, as the three below: ResNet-8 of width 12 reaches about 70% in 10 epochs
GLYPH_SIZES = (11.0, 14.0)  # font size, pixels
GLYPH_SHIFT = 1.5  # pixels, each way
GLYPHS_PER_CLASS = {"train": 48, "test": 60}  # 60 is a multiple of the 5, 12 and 4 fonts of a held-out family
FAMILIES = {"Computer Modern": "cm", "DejaVu": "DejaVu", "STIX": "STIX"}  # name -> how its files' names begin

_DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Fonts(NamedTuple):
    """Matplotlib's text fonts: files of the training set, and of the test set with their family's name."""

    train: tuple[Path, ...]
    held_out: tuple[Path, ...]
    family: str


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's 1,797 scans with Gaussian pixel noise added once.

    Returns:
        Images, uint8 [N, C, H, W] = [1797, 1, 8, 8], and labels, int64 [N].
    """
    from sklearn.datasets import load_digits

    scans = load_digits()
    noisy = scans.images / 16 + np.random.RandomState(0).normal(0, DIGIT_NOISE, scans.images.shape)
    return _to_bytes(noisy)[:, None], scans.target.astype(np.int64)


def glyphs(split: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw the 62 characters with the fonts of `split`, each jittered in size and place, with noise.

    Args:
        split: "train" (48 images a class) or "test" (60 a class, from fonts that never occur in training).
        seed: the recipe's seed, see `fonts`.

    Returns:
        Images, uint8 [N, C, H, W] = [N, 1, 16, 16], and labels, int64 [N], the position in `CHARACTERS`.
    """
    found = fonts(seed)
    files = found.train if split == "train" else found.held_out
    count = GLYPHS_PER_CLASS[split]
    images = [_jittered(character, files[i % len(files)], seed=(("train", "test").index(split), label, i))
              for label, character in enumerate(CHARACTERS) for i in range(count)]
    return np.stack(images)[:, None], np.repeat(np.arange(len(CHARACTERS)), count)


def fonts(seed: int = 0) -> Fonts:
    """Return the fonts of a recipe's seed; the seeds take turns at the `FAMILIES`, so fonts are a source of variance.

    One whole family is held out: no test character is the bold or italic sister of a training character.
    """
    family = list(FAMILIES)[seed % len(FAMILIES)]
    held_out = tuple(file for file in _text_fonts() if file.name.startswith(FAMILIES[family]))
    return Fonts(tuple(file for file in _text_fonts() if file not in held_out), held_out, family)


@functools.cache
def _text_fonts() -> list[Path]:
    import matplotlib

    files = sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("*.ttf"))
    return [file for file in files if _draws_characters(file)]


def _draws_characters(file: Path) -> bool:
    """Return whether a font names its glyphs of the 62 characters as letters and digits.

    Having the 62 code points is not enough: TeX's symbol fonts keep operators there, and the last-resort font one box.
    The glyph's own name tells ("A" against "lastresortlatin").
    """
    from matplotlib.ft2font import FT2Font

    font, names = FT2Font(str(file)), dict(zip(string.digits, _DIGIT_NAMES))
    indices = font.get_charmap()
    return all(ord(character) in indices and
               font.get_glyph_name(indices[ord(character)]) == names.get(character, character)
               for character in CHARACTERS)


def draw(character: str, font: Path | str, pixels: int = GLYPH_PIXELS, size: float = 12.5, dx: float = 0.0,
         dy: float = 0.0) -> np.ndarray:
    """Draw one character, white on black, on a common base line, so that "c" and "C" differ in height.

    Args:
        character: what to draw.
        font: a TrueType file.
        pixels: height and width of the picture.
        size: font size, pixels.
        dx, dy: shift to the right and down, pixels.

    Returns:
        uint8 [H, W], H = W = `pixels`.
    """
    picture = Image.new("L", (pixels, pixels))
    base_line = (pixels / 2 + dx, 0.78 * pixels + dy)
    ImageDraw.Draw(picture).text(base_line, character, fill=255, font=_face(str(font), size), anchor="ms")
    return np.asarray(picture)


def _jittered(character: str, font: Path, seed: tuple[int, int, int]) -> np.ndarray:
    random = np.random.RandomState(np.random.PCG64(seed))  # seven times faster to seed than the default
    size = round(4 * random.uniform(*GLYPH_SIZES)) / 4  # in quarters, so that few faces are opened
    dx, dy = random.uniform(-GLYPH_SHIFT, GLYPH_SHIFT, 2)
    clean = draw(character, font, size=size, dx=dx, dy=dy) / 255
    return _to_bytes(clean + random.normal(0, GLYPH_NOISE, clean.shape))


def _to_bytes(picture: np.ndarray) -> np.ndarray:
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


@functools.cache
def _face(font: str, size: float) -> ImageFont.FreeTypeFont:
    # The basic layout: the other one depends on which shaping library a machine has.
    return ImageFont.truetype(font, size, layout_engine=ImageFont.Layout.BASIC)
