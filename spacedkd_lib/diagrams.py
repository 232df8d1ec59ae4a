"""Drawings of what a method is made of: boxes for networks and maps, arrows for what flows, a label for each loss.

Shapes of maps are given as (C, H, W). Look and sizes are those of figures.py. No torch here.
Taught in notebooks/10_ie_kd.ipynb.
"""

from __future__ import annotations

from typing import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from .figures import COLOURS, PAGE, style
from .recipes import InputError

Point = tuple[float, float]  # x and y in inches, from the lower left corner


def _canvas(height: float) -> tuple[Figure, plt.Axes]:
    """A figure a page wide, in whose axes one unit is one inch."""
    style()
    fig = plt.figure(figsize=(PAGE, height))
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, PAGE), ylim=(0, height))
    ax.set_axis_off()
    return fig, ax


def _box(ax: plt.Axes, centre: Point, size: Point, text: str, shade: str, frozen: bool = False) -> None:
    """A labelled box; dashed if nothing in it changes."""
    (x, y), (width, height) = centre, size
    ax.add_patch(plt.Rectangle((x - width / 2, y - height / 2), width, height, facecolor=shade + "22", edgecolor=shade,
                               ls="--" if frozen else "-"))
    ax.text(x, y, text, ha="center", va="center", linespacing=1.1)


def _arrow(ax: plt.Axes, *corners: Point, shade: str = "#444444", both: bool = False) -> None:
    """An arrow along the corners, its head at the last one; heads at both ends of a straight one."""
    if len(corners) > 2:
        ax.plot(*zip(*corners[:-1]), color=shade, lw=1, solid_capstyle="butt")
    ax.annotate("", corners[-1], corners[-2], arrowprops=dict(arrowstyle="<|-|>" if both else "-|>", color=shade, lw=1,
                                                              shrinkA=0, shrinkB=0))


def _shape(what: str, shape: Sequence[int]) -> str:
    return f"{what}\n{' × '.join(map(str, shape))}"


def split_student(student: Sequence[int], teacher: Sequence[int], factor: Sequence[int],
                  images: Sequence[int]) -> Figure:
    """IE-KD: a teacher whose map a paraphraser turns into a factor, and a student whose map is split in two halves,
    one drawn to the factor and one pushed away from it, each through an encoder of its own.

    Args:
        student, teacher: shapes of the last maps.
        factor: shape of the paraphraser's code, which both encoders share.
        images: shape of an image.

    Raises:
        InputError: an odd number of the student's channels, or maps of different height or width.
    """
    channels, *size = student
    if channels % 2 or {(*size,), (*teacher[1:],), (*factor[1:],)} != {(*size,)}:
        raise InputError(f"A student's map {tuple(student)}, a teacher's {tuple(teacher)} and a factor {tuple(factor)} "
                         "do not make IE-KD: give an even number of the student's channels and one height and width.")
    fig, ax = _canvas(3.9)
    upper, inherit, explore, middle = 2.6, 1.55, 0.95, 1.25  # heights of the rows
    one, other, plain = COLOURS["inherit"], COLOURS["explore"], COLOURS["plain"]
    _box(ax, (0.5, 1.93), (0.8, 0.5), _shape("images", images), plain)
    _box(ax, (1.65, upper), (0.9, 0.5), "teacher", plain, frozen=True)
    _box(ax, (2.95, upper), (0.9, 0.5), _shape("its map", teacher), plain, frozen=True)
    _box(ax, (4.3, upper), (1.0, 0.5), "paraphraser's\nencoder", plain, frozen=True)
    _box(ax, (5.7, upper), (0.9, 0.5), _shape("factor", factor), plain, frozen=True)
    _box(ax, (4.3, 3.4), (1.0, 0.5), "paraphraser's\ndecoder", plain, frozen=True)
    _box(ax, (1.65, middle), (0.9, 0.5), "student", plain)
    for y, shade, name in ((inherit, one, "inheriting"), (explore, other, "exploring")):
        _box(ax, (2.95, y), (0.9, 0.6), f"{name}\n{' × '.join(map(str, (channels // 2, *size)))}", shade)
        _box(ax, (4.3, y), (1.0, 0.4), "its encoder", shade)
        _box(ax, (5.7, y), (0.9, 0.4), " × ".join(map(str, factor)), shade)
        _arrow(ax, (3.4, y), (3.8, y), shade=shade)
        _arrow(ax, (4.8, y), (5.25, y), shade=shade)
    for row, into in ((upper, 2.05), (middle, 1.8)):
        _arrow(ax, (0.9, into), (1.05, into), (1.05, row), (1.2, row))
        _arrow(ax, (2.1, row), (2.5, row))
    _arrow(ax, (3.4, upper), (3.8, upper))
    _arrow(ax, (4.8, upper), (5.25, upper))
    _arrow(ax, (5.7, 2.85), (5.7, 3.4), (4.8, 3.4))
    _arrow(ax, (3.8, 3.4), (2.95, 3.4), (2.95, 2.85))
    ax.text(2.85, 3.25, "reconstruction error:\ntrains the paraphraser", ha="right", va="center")
    _arrow(ax, (5.7, 1.75), (5.7, 2.35), shade=one, both=True)
    ax.text(5.62, 2.05, "inheritance: nearer", ha="right", va="center", color=one)
    _arrow(ax, (6.15, explore), (6.85, explore), (6.85, upper), (6.15, upper), shade=other)
    ax.text(6.79, 2.05, "exploration:\nfarther", ha="right", va="center", color=other)
    _arrow(ax, (2.95, 0.65), (2.95, 0.33), (3.3, 0.33))
    ax.text(3.36, 0.33, "pooling, linear layer: cross-entropy with the labels", va="center")
    ax.text(0.1, 0.33, "dashed: at rest\nwhile the student learns", va="center")
    return fig
