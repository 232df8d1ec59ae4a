"""Drawings of what a method is made of: boxes for networks and maps, arrows for what flows.

Shapes of maps are given as (C, H, W). No torch here.
Taught in notebooks/04_self_kd.ipynb, notebooks/10_ie_kd.ipynb, notebooks/11_education_distillation.ipynb,
notebooks/12_vision_transformers.ipynb and notebooks/13_spacing_beyond_kd.ipynb.
"""

from __future__ import annotations

from typing import Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from ..methods.dropout_ema import average_weights, equal_horizon
from ..recipes import Recipe
from .schedule_figures import grades
from .style import COLOURS, PAGE, apply_style, colour

__all__ = ["averages", "grades", "growing_student", "multi_exit", "patches", "split_student"]
Point = tuple[float, float]  # x and y in inches, from the lower left corner
SHADES = (colour("spaced EMA s=0.1"), "#95560A", "#623400", "#2B1500")  # from short intervals to long ones
BODY, HEAD, TEACHER = colour("student") + "33", colour("student") + "77", colour("teacher") + "55"  # tints


def _canvas(height: float) -> tuple[Figure, plt.Axes]:
    """Make a figure a page wide, in whose axes one unit is one inch."""
    apply_style()
    fig = plt.figure(figsize=(PAGE, height))
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, PAGE), ylim=(0, height))
    ax.set_axis_off()
    return fig, ax


def _box(ax: plt.Axes, centre: Point, size: Point, text: str, shade: str, edge: str = "", rests: bool = False) -> None:
    """Draw a labelled box, dashed if it rests: nothing in it changes, or it is not in use yet."""
    (x, y), (width, height) = centre, size
    ax.add_patch(plt.Rectangle((x - width / 2, y - height / 2), width, height, facecolor=shade, lw=0.9,
                               edgecolor=edge or "black", ls="--" if rests else "-"))
    ax.text(x, y, text, ha="center", va="center", linespacing=1.1)


def _tinted(ax: plt.Axes, centre: Point, size: Point, text: str, shade: str, rests: bool = False) -> None:
    _box(ax, centre, size, text, shade + "22", shade, rests)


def _arrow(ax: plt.Axes, *corners: Point, shade: str = "#444444", both: bool = False) -> None:
    """Draw an arrow along the corners, its head at the last one; heads at both ends of a straight one."""
    if len(corners) > 2:
        ax.plot(*zip(*corners[:-1]), color=shade, lw=1, solid_capstyle="butt")
    ax.annotate("", corners[-1], corners[-2], arrowprops=dict(arrowstyle="<|-|>" if both else "-|>", color=shade, lw=1,
                                                              shrinkA=0, shrinkB=0))


def _shape(what: str, shape: Sequence[int]) -> str:
    return f"{what}\n{' × '.join(map(str, shape))}"


def split_student(student: Sequence[int], teacher: Sequence[int], factor: Sequence[int],
                  images: Sequence[int]) -> Figure:
    """Draw IE-KD: a paraphraser turns the teacher's map into a factor.

    The factor attracts one half of the student's map and repels the other, each through an encoder of its own.
    """
    channels, *size = student
    fig, ax = _canvas(3.9)
    upper, inherit, explore, middle = 2.6, 1.55, 0.95, 1.25  # heights of the rows
    one, other, plain = COLOURS["inherit"], COLOURS["explore"], COLOURS["plain"]
    _tinted(ax, (0.5, 1.93), (0.8, 0.5), _shape("images", images), plain)
    _tinted(ax, (1.65, upper), (0.9, 0.5), "teacher", colour("teacher"), rests=True)
    _tinted(ax, (2.95, upper), (0.9, 0.5), _shape("its map", teacher), colour("teacher"), rests=True)
    _tinted(ax, (4.3, upper), (1.0, 0.5), "paraphraser's\nencoder", plain, rests=True)
    _tinted(ax, (5.7, upper), (0.9, 0.5), _shape("factor", factor), plain, rests=True)
    _tinted(ax, (4.3, 3.4), (1.0, 0.5), "paraphraser's\ndecoder", plain, rests=True)
    _tinted(ax, (1.65, middle), (0.9, 0.5), "student", colour("student"))
    for y, shade, name in ((inherit, one, "inheriting"), (explore, other, "exploring")):
        _tinted(ax, (2.95, y), (0.9, 0.6), f"{name}\n{' × '.join(map(str, (channels // 2, *size)))}", shade)
        _tinted(ax, (4.3, y), (1.0, 0.4), f"encoder $E_{name[0]}$", shade)
        _tinted(ax, (5.7, y), (0.9, 0.4), " × ".join(map(str, factor)), shade)
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
    _arrow(ax, (6.5, explore), (6.85, explore), (6.85, upper), (6.15, upper), shade=other)
    _arrow(ax, (6.5, explore), (6.15, explore), shade=other)
    ax.text(6.79, 2.05, "exploration:\nfarther", ha="right", va="center", color=other)
    _arrow(ax, (2.95, 0.65), (2.95, 0.33), (3.3, 0.33))
    ax.text(3.36, 0.33, "both halves: pooling, linear layer, cross-entropy with the labels", va="center")
    ax.text(0.1, 0.33, "dashed: at rest\nwhile the student learns", va="center")
    return fig


def multi_exit(maps: Sequence[Sequence[int]]) -> Figure:
    """Draw self KD: an exit after each of four stages at most; the deepest exit teaches the others."""
    fig, ax = _canvas(2.9)
    trunk, gate, exit, above, apart = 0.4, 1.15, 1.95, 2.55, 1.6  # heights of the rows; inches between two stages
    _tinted(ax, (0.45, trunk), (0.7, 0.5), "image", COLOURS["plain"])
    _arrow(ax, (0.8, trunk), (1.0, trunk))
    for k, shape in enumerate(maps, start=1):
        x, deepest = 1.5 + apart * (k - 1), k == len(maps)
        _tinted(ax, (x, trunk), (1.0, 0.5), _shape(f"stage {k}", shape), COLOURS["plain"])
        _box(ax, (x, exit), (1.0, 0.5), "deepest exit" if deepest else f"exit {k}", TEACHER if deepest else HEAD)
        if deepest:
            _arrow(ax, (x, trunk + 0.25), (x, exit - 0.25))
            ax.plot([1.5, x, x], [above, above, exit + 0.25], color=colour("teacher"), lw=1)
            continue
        _box(ax, (x, gate), (1.0, 0.5), "gate,\nthen shrink", "white")
        _arrow(ax, (x, trunk + 0.25), (x, gate - 0.25))
        _arrow(ax, (x, gate + 0.25), (x, exit - 0.25))
        _arrow(ax, (x, above), (x, exit + 0.25), shade=colour("teacher"))
        _arrow(ax, (x + 0.5, trunk), (x + apart - 0.5, trunk))
    ax.text(1.5, above + 0.08, "the deepest exit teaches: soft targets and features", va="bottom",
            color=colour("teacher"))
    return fig


def growing_student(depths: Sequence[int], outputs: Sequence[int], schools: Sequence[int]) -> Figure:
    """Draw what of the network each grade uses, and who teaches it; dashed: there already, but not in use yet."""
    apply_style()
    high = max(max(depths) + 3, len(schools) * 1.5)  # in boxes of a stage
    fig, axes = plt.subplots(1, len(depths), figsize=(PAGE, 0.24 * high + 0.4), squeeze=False, layout="constrained")
    for grade, (ax, depth, classes) in enumerate(zip(axes.flat, depths, outputs), start=1):
        ax.set_axis_off()
        ax.set(xlim=(0, 2.1), ylim=(-0.1, high + 0.1), xticks=[], yticks=[], title=f"grade {grade}: {classes} classes")
        _draw_student(ax, depth, max(depths), classes, "head" if grade == len(depths) else "reference head")
        for k, taught in enumerate(schools):
            _block(ax, 1.1, 1.5 * k, 1.5, f"teacher {k + 1}\n{taught} classes", TEACHER, used=k < grade)
    return fig


def _block(ax: plt.Axes, x: float, y: float, height: float, text: str, shade: str, used: bool = True) -> None:
    _box(ax, (x + 0.475, y + height / 2 - 0.075), (0.95, height - 0.15), text, shade if used else "white",
         "black" if used else "#999999", rests=not used)


def _draw_student(ax: plt.Axes, depth: int, stages: int, outputs: int, head: str) -> None:
    """Draw, from below, stem and stages; the head stands on the last one in use, what is not yet in use above it."""
    _block(ax, 0, 0, 1, "stem", BODY)
    for stage in range(1, depth + 1):
        _block(ax, 0, stage, 1, f"stage {stage}", BODY)
    _block(ax, 0, depth + 1, 2, f"{head}\n{outputs} outputs", HEAD)
    for stage in range(depth + 1, stages + 1):
        _block(ax, 0, stage + 2, 1, f"stage {stage}", BODY, used=False)


def patches(image: np.ndarray, side: int, attention: np.ndarray) -> Figure:
    """Draw a transformer's view of a picture: where it is cut, the tokens in their order, and who attends to whom.

    Args:
        image: [H, W] of one grey channel, H = W.
        side: of a patch, pixels; divides H.
        attention: [1 + N, 1 + N] for N patches, class token first; each row, who asks, sums to 1.
    """
    height, across = len(image), len(image) // side
    apply_style()
    fig, (whole, cut, seen) = plt.subplots(1, 3, figsize=(PAGE, 2.7), layout="constrained")
    low, high = np.min(image), np.max(image)
    whole.imshow(image, cmap="gray", extent=(0, across, across, 0))
    for line in range(1, across):
        whole.axhline(line, color=COLOURS["explore"])
        whole.axvline(line, color=COLOURS["explore"])
    whole.set_title(f"{height} × {height} pixels")
    for k in range(across**2):
        (row, column), step = divmod(k, across), 1.4
        part = image[row * side:(row + 1) * side, column * side:(column + 1) * side]
        cut.imshow(part, cmap="gray", vmin=low, vmax=high,
                   extent=(step * column, step * column + 1, step * row + 1, step * row))
        cut.text(step * column + 0.5, step * row - 0.03, str(k + 1), ha="center", va="bottom")
    cut.set(xlim=(-0.2, 1.4 * across - 0.2), ylim=(1.4 * across - 0.2, -0.2))
    cut.set_title(f"{across**2} tokens, and one for the class")
    for ax in (whole, cut):
        ax.set_axis_off()
        ax.set(xticks=[], yticks=[])
    _draw_attention(seen, np.asarray(attention))
    return fig


def _draw_attention(ax: plt.Axes, attention: np.ndarray) -> None:
    """Shares as shades, and in numbers where there is room."""
    names = ["class", *range(1, len(attention))]
    sns.heatmap(attention, vmin=0, cmap="Blues", annot=len(attention) <= 6, fmt=".2f", annot_kws={"size": 8},
                cbar=False, square=True, ax=ax)
    shown = range(0, len(names), -(-len(names) // 9))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks([k + 0.5 for k in shown], [names[k] for k in shown], rotation=0)
    ax.tick_params(length=0)
    ax.set_title("attention: rows ask columns")


def _legend_above(ax: plt.Axes) -> None:
    """One line over the axes, narrow enough for half a page."""
    ax.legend(loc="lower center", ncols=4, bbox_to_anchor=(0.5, 1.0), borderaxespad=0.2, columnspacing=0.8,
              handlelength=1.2, handletextpad=0.4)


def averages(recipe: Recipe, interval: float, batches_per_epoch: int, others: Sequence[float]) -> Figure:
    """Draw how much of an average at the end of a run is younger than an age.

    A second picture draws, over the run, how much of an average that is not debiased is still the initialisation.
    """
    apply_style()
    fig, (weights, left) = plt.subplots(1, 2, figsize=(PAGE, 2.5), layout="constrained", width_ratios=[1.4, 1])
    a, total, K = recipe.ema_decay, recipe.epochs * batches_per_epoch, int(interval * batches_per_epoch)
    for arm, decay, every, ls in ((f"spaced EMA s={interval:g}", a, K, "-"), ("EMA", a, 1, "-"),
                                  ("EMA, equal horizon", equal_horizon(a, K), 1, "--")):
        younger = np.cumsum(average_weights(decay, True, total // every)[:0:-1])  # the newest first
        ages = (np.arange(len(younger)) * every + 1) / batches_per_epoch
        weights.plot(ages, 100 * younger, color=colour(arm), ls=ls, label=arm, drawstyle="steps-post")
    weights.set(xscale="log", ylim=(0, 105), xlabel="age (epochs before the end)",
                ylabel="weight of younger networks (%)")
    _legend_above(weights)
    for k, s in enumerate((interval, *others)):
        steps = np.arange(0, total // int(s * batches_per_epoch) + 1)
        left.plot(steps * s, 100 * a**steps, color=SHADES[k % len(SHADES)], label=f"s = {s:g}")
    left.set(xlabel="epochs trained", ylabel="weight of the initialisation (%)", ylim=(0, 105))
    _legend_above(left)
    return fig
