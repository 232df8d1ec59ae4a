"""Records -> figures: arms, differences, the lead-lag law, curves, pictures; and how a figure is kept.

Figures come from pyplot: a notebook shows them at the end of their cell. Seaborn draws what is spread over seeds, with
Student's intervals. Styles are in style.py, schedules in schedule_figures.py. No torch here. A `frame` is that of
`tables.runs`, of one notebook, unless its function says otherwise.
"""

from __future__ import annotations

import io
import json
import math
import re
import textwrap
from pathlib import Path
from typing import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..lab import claims
from ..lab.arms import CONTROL_INTERVAL
from ..lab.lead_lag import LAG_OWN, LAG_OWN_MOVING, lag_name
from ..statistics import paired_by_seed
from ..store import records
from .schedule_figures import schedules
from .style import (
    ARM_STYLES, COLOURS, COLUMN, LINES, PAGE, alt_text, apply_style, by_arm, colour, legend_below, panels, say_n,
    style_of, styles_of, t_interval,
)

__all__ = ["COLOURS", "COLUMN", "LINES", "PAGE", "alt_text", "apply_style", "arms", "colour",
           "comparisons", "differences", "lead_lag", "learning_curves", "save", "schedules",
           "sheet", "style_of"]


# Arms

def above(frame: pd.DataFrame, references: dict[str, str] | str) -> pd.DataFrame:
    """Return the runs that have a partner, with the difference of test accuracies as column "above", in points.

    The partner is another arm's run of the same setting and seed.

    Args:
        references: name of the other arm, or of that of each family.
    """
    partner = frame["family"].map(references) if isinstance(references, dict) else references
    keys = ["setting", "arm", "seed"]
    there = frame[[*keys, "test_accuracy"]].rename(columns={"arm": "partner", "test_accuracy": "below"})
    joined = frame.assign(partner=partner).merge(there, on=["setting", "partner", "seed"])
    return joined.assign(above=joined["test_accuracy"] - joined["below"])


def arms(frame: pd.DataFrame, title: str = "") -> Figure:
    """Draw the test accuracy of every arm: each seed a dot, mean, interval."""
    fig, _ = _forest(frame, "test_accuracy", "test accuracy (%)\ndots: seeds")
    fig.suptitle(title, x=0.01, ha="left")
    return fig


def differences(frame: pd.DataFrame, reference: dict[str, str] | str = "baseline") -> Figure:
    """Draw the differences of every arm to a reference, paired by seed: each pair a dot, mean, interval, zero marked.

    Args:
        reference: name of an arm; or that of each family's control, then other families are left out.
    """
    pairs = above(frame, reference)
    fig, axes = _forest(pairs[pairs["arm"] != pairs["partner"]], "above", "accuracy minus that of "
                        f"{reference if isinstance(reference, str) else 'its control'} (points)\ndots: pairs")
    for ax in axes:
        ax.axvline(0, color="black", lw=0.8)
    return fig


def _forest(frame: pd.DataFrame, column: str, label: str) -> tuple[Figure, list[plt.Axes]]:
    """Draw a row for each arm that a setting has: a dot for each seed, the mean and its interval just above."""
    parts = dict(list(frame.groupby("setting", sort=False)))
    fig, axes = panels(list(parts), [0.5 + 0.27 * part["arm"].nunique() for part in parts.values()])
    for ax, part in zip(axes, parts.values()):
        names = list(dict.fromkeys(part["arm"]))
        options = dict(x=column, y="arm", order=names, ax=ax, **by_arm(names, style=False))
        sns.stripplot(part, **options, jitter=False, size=3, alpha=0.7)
        for dots in ax.collections:
            dots.set_offsets(dots.get_offsets() + [0, 0.25])
        sns.pointplot(part, **options, markers=[marker for _, marker in styles_of(names).values()], linestyle="none",
                      errorbar=t_interval, capsize=0.1, markersize=4.5, mew=0, err_kws={"linewidth": 1.2})
        _name_rows(ax, [textwrap.fill(name, 30) for name in names])
    counts = {ax: part.groupby("arm").size() for ax, part in zip(axes, parts.values())}
    fig.supxlabel(f"{label}; {say_n(counts)}", fontsize=8)
    return fig, axes


def _name_rows(ax: plt.Axes, names: Sequence[str]) -> None:
    """Rows from the top."""
    ax.set_yticks(range(len(names)), names, linespacing=1.0)
    ax.set(xlabel="", ylabel="", ylim=(len(names) - 0.4, -0.6))
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")


def comparisons(table: pd.DataFrame, label: str, title: str = "") -> Figure:
    """Draw chosen paired differences with their intervals."""
    parts = dict(list(table.groupby("Setting", sort=False)))
    fig, axes = panels(list(parts), [0.3 + 0.2 * len(part) for part in parts.values()], columns=1, width=PAGE,
                       sharex=True)
    for ax, part in zip(axes, parts.values()):
        mean, low, high = (part[f"Difference{name}"] for name in (" (points)", ": low", ": high"))
        ax.errorbar(mean, range(len(part)), xerr=[mean - low, high - mean], fmt="o", capsize=2, color=LINES[0])
        ax.axvline(0, color="black", lw=0.8)
        _name_rows(ax, part[label])
    fig.suptitle(title, x=0.01, ha="left")
    fig.supxlabel(f"points; {say_n(table['Difference: pairs'])}", fontsize=8)
    return fig


# The lead-lag law

LAG_PANELS = {  # title: families
    "at spaced KD's values": (LAG_OWN, LAG_OWN_MOVING), "α as tuned for online KD": ("lag, alpha tuned",),
    "α = 0.9": ("lag", "lag, moving", "lag, other batches"),
    "α = 0.9, in eval mode": ("lag, eval mode",)}
LAG_STYLES = {  # family: what the legend calls it, and its line
    LAG_OWN: ("frozen, spaced KD's values", "-"), LAG_OWN_MOVING: ("moving, spaced KD's values", "--"),
    "lag, alpha tuned": ("frozen, α as tuned", "-"), "lag": ("frozen", "-"), "lag, moving": ("moving", "--"),
    "lag, other batches": ("other batches", ":"), "lag, eval mode": ("eval mode", "-")}


def lead_lag(frame: pd.DataFrame, curve: tuple[Sequence, Sequence] | None = None) -> Figure:
    """Draw test accuracy against the teacher's offset, minus that of offset 0 of the same family, paired by seed.

    A teacher that moves has the offset 0 of one that rests. Below: the sign of that difference by each theory.

    Args:
        curve: offsets in epochs, and the linear model's variance there, see `theory.lead_lag`.
    """
    zero = {family: lag_name(family.replace(", moving", ""), 0.0) for family in LAG_STYLES}
    pairs = above(frame, zero)
    moving = [family for family in zero if ", moving" in family and family in set(pairs["family"])]
    pairs = pd.concat([pairs, *(pairs[pairs["arm"] == zero[family]].assign(family=family) for family in moving)])
    several = pairs.groupby("family")["interval"].transform("nunique") > 1
    drawn = {title: part for title, families in LAG_PANELS.items()
             if len(part := pairs[pairs["family"].isin(families) & several])}
    titles = [*drawn, *[""] * bool(curve), ""]
    fig, axes = panels(titles, [1.8] * len(drawn) + [1.1] * (len(titles) - len(drawn)), columns=2)
    for ax, part in zip(axes, drawn.values()):
        _draw_lags(ax, part, frame, zero)
    for ax in axes[:len(drawn):2]:
        ax.set_ylabel("above offset 0 (points)")
    for ax in axes:
        ax.set(xlim=(-4.5, 4.5), xticks=range(-4, 5, 2))
    if curve:
        axes[-2].plot(*curve, color="black")
        axes[-2].invert_yaxis()
        axes[-2].set_title("linear model, α = 0.9: the student's variance, small is up", fontsize=8)
    _draw_signs(axes[-1])
    for ax in axes[len(drawn):]:
        ax.set_xlabel("teacher's offset (epochs)")
    shown = [family for family in LAG_STYLES if any(family in set(part["family"]) for part in drawn.values())]
    styles = {LAG_STYLES[family][0]: (*ARM_STYLES[family], LAG_STYLES[family][1]) for family in shown}
    styles |= {"labels alone": (colour("baseline"), "", "--")} if drawn and "baseline" in set(frame["arm"]) else {}
    legend_below(fig, styles, say_n(pairs.groupby(["family", "arm"]).size()), styles)
    return fig


def _draw_lags(ax: plt.Axes, part: pd.DataFrame, frame: pd.DataFrame, zero: dict[str, str]) -> None:
    """Draw a curve for each family, and for the first of a panel labels alone."""
    for family, runs in part.groupby("family", sort=False):
        shade, marker = ARM_STYLES[family]
        sns.lineplot(runs, x="interval", y="above", errorbar=t_interval, err_style="bars", color=shade, marker=marker,
                     mec=shade, ls=LAG_STYLES[family][1], err_kws={"elinewidth": 0.7}, ax=ax)
    first = part["family"].iloc[0]
    labels = paired_by_seed(frame, "baseline", zero[first])
    if labels.n and first != LAG_OWN:  # labels alone have the other families' learning rate
        ax.axhline(labels.mean, color=colour("baseline"), ls="--", lw=1)
    ax.axhline(0, color="black", lw=0.8)
    ax.set(xlabel="", ylabel="")
    ax.grid(axis="y")


def _draw_signs(ax: plt.Axes) -> None:
    """Write what each theory says of a teacher behind, on the left, and ahead, on the right."""
    signs = {of.arm: of for of in claims.PREDICTIONS if of.reference == lag_name("lag", 0.0)}
    lines = {"predicted, at α = 0.9": {-1: "behind", 1: "ahead"}}
    for theory, name in zip(("ahead", "frozen", "linear"), claims.THEORIES):
        said = {side: getattr(signs[lag_name("lag", side * CONTROL_INTERVAL)], theory) for side in (-1, 1)}
        lines[name.lower()] = {side: {1: "+", -1: "−", 0: "0", None: ""}[sign] for side, sign in said.items()}
    for y, (name, words) in enumerate(lines.items()):
        ax.text(0, y, name, ha="center", va="center", fontweight="normal" if y else "bold")
        for side, word in words.items():
            ax.text(0.5 + 0.35 * side, y, word, ha="center", va="center", fontweight="bold",
                    transform=ax.get_yaxis_transform())
    ax.set(ylim=(len(lines) - 0.4, -0.6), yticks=[])
    ax.spines["left"].set_visible(False)


# Curves

def learning_curves(frame: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Draw the test accuracy of every epoch, mean over seeds with its 95% t interval as a band."""
    fig = curves(frame, [arm for arm in names if arm in set(frame["arm"])], "epoch", "test_accuracy",
                 ("epoch", "test accuracy (%)"))
    for ax in fig.axes:
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return fig


def curves(frame: pd.DataFrame, names: Sequence[str], x: str, y: str, labels: tuple[str, str]) -> Figure:
    """Draw a panel for each setting and a curve for each arm: mean over seeds, its 95% t interval as a band.

    Args:
        frame: a line a run and place: setting, arm, seed, x and y.
        x, y: columns; lines without y are left out.
    """
    settings, kept = list(frame["setting"].unique()), frame[frame["arm"].isin(names)].dropna(subset=[y])
    fig, axes = panels(settings, [2.1] * len(settings))
    counts = {}
    for ax, setting in zip(axes, settings):
        part = kept[kept["setting"] == setting]
        if len(part):
            sns.lineplot(part, x=x, y=y, **by_arm(names), dashes=False, errorbar=t_interval, mew=0,
                         markevery=part[x].nunique() // 8 + 1, err_kws={"alpha": 0.12, "lw": 0}, ax=ax)
        ax.set(xlabel=labels[0], ylabel=labels[1])
        ax.grid(axis="y")
        counts[ax] = part.groupby(["arm", x]).size()
    shown = [arm for arm in names if arm in set(kept["arm"])]
    legend_below(fig, shown, f"mean over seeds; {say_n(counts)}")
    return fig


# Pictures and files

def sheet(images: np.ndarray, columns: int, titles: Sequence[str] | None = None) -> Figure:
    """Draw pictures in a grid, a page wide.

    Args:
        images: uint8 [N, C, H, W], C = 1 or 3.
        columns: pictures in a row.
        titles: N short texts, one above each picture; broken at blanks and underscores.
    """
    apply_style()
    n, channels, height, width = images.shape
    gap, cell = max(width // 10, 1), PAGE / columns  # pixels; inches
    words = [re.split("[_ ]", title) for title in titles or []]
    longest = max((len(word) for parts in words for word in parts), default=1)
    size = min(8, max(5, cell * 72 / (0.65 * longest)))  # points; a letter is about 0.65 times as wide
    head = gap + math.ceil(max(map(len, words), default=0) * size * 1.3 / 72 / cell * (width + gap))  # pixels
    canvas = np.full((-(-n // columns) * (height + head), columns * (width + gap), channels), 255, np.uint8)
    fig = plt.figure(figsize=(PAGE, PAGE * canvas.shape[0] / canvas.shape[1]))
    ax = fig.add_axes((0, 0, 1, 1))
    for k, image in enumerate(images):
        y, x = k // columns * (height + head) + head, k % columns * (width + gap)
        canvas[y:y + height, x:x + width] = image.transpose(1, 2, 0)
        if words:
            ax.text(x + width / 2, y - gap / 2, "\n".join(words[k]), ha="center", va="bottom", fontsize=size)
    ax.imshow(canvas.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.set_axis_off()
    return fig


def save(fig: Figure, path: Path, run_ids: Iterable[str]) -> None:
    """Keep a figure as a PNG whose metadata, under "Description", name its records; equal figures give equal bytes.

    Raises:
        InputError: the folder cannot be written to.
    """
    fig.draw_without_rendering()
    fig.set_layout_engine("none")  # the layout depends a little on the resolution: settle it once
    content = io.BytesIO()
    shows = json.dumps({"figure": path.stem, "runs": sorted(set(run_ids))})
    fig.savefig(content, format="png", dpi=200, metadata={"Software": None, "Description": shows})
    records.write_atomically(path, content.getvalue())
