"""Measures -> figures: surfaces, weight noise, multiples of a reference, spectra, trajectories, idle updates.

Each function takes what `Session.measures` returns, beside the runs they belong to. No torch here. Taught in
notebooks/06_loss_landscape.ipynb and, idle updates, notebooks/12_vision_transformers.ipynb.
"""

from __future__ import annotations

import math
from typing import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from ..statistics import paired_by_seed
from .style import LINES, PAGE, apply_style, legend_below, panels, say_n, style_of

Values = Mapping[str, np.ndarray]


def _logarithmic(axis: Axis) -> None:
    """Set a logarithmic scale in plain numbers; more ticks on a short one. What is drawn must be drawn before."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 5 * low else (1, 1.5, 2, 3, 4, 5, 7)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


HIGHEST, MOST = 4.0, 4.0  # losses above it, nats, and multiples above it or below its inverse, are cut


def planes(titled: Mapping[str, Values]) -> Figure:
    """Draw filter-normalised planes side by side: above the surfaces, below their contours; one scale for all.

    Args:
        titled: title -> "steps" [n], "loss" [n, n] in nats.
    """
    apply_style()
    fig = plt.figure(figsize=(PAGE, 1.9 + PAGE / len(titled)), layout="constrained")
    levels = np.linspace(0, HIGHEST, 17)
    for k, (title, values) in enumerate(titled.items()):
        a, b = np.meshgrid(values["steps"], values["steps"], indexing="ij")
        loss = np.clip(values["loss"], None, HIGHEST)
        ax = fig.add_subplot(2, len(titled), k + 1, projection="3d")
        ax.plot_surface(a, b, loss, cmap="viridis", vmin=0, vmax=HIGHEST, lw=0, rcount=41, ccount=41)
        ends = [values["steps"][0], 0, values["steps"][-1]]
        ax.set(title=title, zlim=(0, HIGHEST), xticks=ends, yticks=ends)
        flat = fig.add_subplot(2, len(titled), len(titled) + k + 1)
        drawn = flat.contourf(a, b, loss, levels, cmap="viridis")
        flat.contour(a, b, loss, levels[1:-1:2], colors="white", linewidths=0.4)
        flat.plot(0, 0, "+", color="red")
        flat.set(aspect="equal", xlabel="first direction", ylabel="second direction" if k == 0 else "")
    fig.colorbar(drawn, ax=fig.axes[1::2], label=f"loss (nats, cut at {HIGHEST:g})", shrink=0.8)
    return fig


def quotients(frame: pd.DataFrame, arms: Sequence[str], columns: Mapping[str, str],
              references: Mapping[str, str] | None = None) -> Figure:
    """Draw arms as multiples of another arm, paired by seed: a row for each measure, mean and 95% t interval.

    Args:
        frame: from `tables.measured`, of one notebook; the measures are positive.
        arms: that are drawn, at most five; those without records are left out.
        columns: measure -> label.
        references: arm -> what it is a multiple of, for those whose reference is not the baseline.
    """
    references = references or {}
    settings, arms = list(frame["setting"].unique()), [arm for arm in arms if arm in set(frame["arm"])]
    fig, axes = panels(settings, [0.4 + 0.45 * len(columns)] * len(settings))
    counts, ends = {}, [1.5]
    for ax, setting in zip(axes, settings):
        part = frame[frame["setting"] == setting]
        part = part.assign(**{name: np.log(part[name]) for name in columns})
        found = {(row, arm): paired_by_seed(part, arm, references.get(arm, "baseline"), name)
                 for row, name in enumerate(columns) for arm in arms}
        for (row, arm), i in found.items():
            mean, *around = np.exp(i[:3])
            shade, marker = style_of(arm)
            y = row + 0.7 * (arms.index(arm) + 1) / (len(arms) + 1) - 0.35
            ax.errorbar(mean, y, xerr=np.abs([[mean - around[0]], [around[1] - mean]]), fmt=marker, color=shade)
            ends += [end for value in np.exp(i[:3]) for end in (value, 1 / value) if math.isfinite(end)]
        ax.axvline(1, color="black", lw=0.8)
        ax.set(yticks=range(len(columns)), ylim=(len(columns) - 0.5, -0.5))
        ax.set_yticklabels(columns.values())
        counts[ax] = [i.n for i in found.values()]
    for ax in axes:
        reach = min(MOST, max(ends))
        ax.set(xscale="log", xlim=(1 / reach, reach), xlabel="multiple of baseline")
        _logarithmic(ax.xaxis)
    legend_below(fig, arms, say_n(counts))
    return fig


IDLE_PARTS = {"all": ("as released", LINES[1], "-"), "momentum": ("momentum only", LINES[0], "--"),
              "decay": ("decay only", LINES[2], "-.")}


def idle_drift(moved: pd.DataFrame, resumed: pd.DataFrame, limit: float) -> Figure:
    """Draw a network that is idle under AdamW: how far it goes, its later updates' lengths, what it still knows.

    Args:
        moved: from `idle.drift`.
        resumed: from `idle.resumed`; lengths are shown one by one and as a mean that runs over a tenth of them.
        limit: how far momentum alone carries it, in updates: `idle.coasting()`.
    """
    apply_style()
    fig, (far, long, known) = plt.subplots(1, 3, figsize=(PAGE, 2.9), layout="constrained")
    for part, (name, shade, dashes) in IDLE_PARTS.items():
        of = moved[moved["part"] == part]
        far.plot(of["idle"], of["distance"], dashes, color=shade, label=name)
        known.plot(of["idle"], of["test_accuracy"], dashes, color=shade)
    far.axhline(limit, color="black", lw=0.8, ls=":", label=f"momentum, closed form: {limit:.2f}")
    long.plot(resumed["update"], resumed["length"], ".", color="#999999", ms=3, label="measured, one update")
    smooth = resumed["length"].rolling(max(len(resumed) // 10, 1), center=True, min_periods=1).mean()
    long.plot(resumed["update"], smooth, color=LINES[3], label="measured, running mean")
    long.plot(resumed["update"], resumed["predicted"], color="black", ls="--", label="predicted, second moment alone")
    long.axhline(1, color="#999999", lw=0.8)
    for ax in (far, known):
        ax.set_xscale("symlog", linthresh=1)
        ax.set_xlim(0, None)
        ax.set_xticks([k for k in (0, 1, 10, 100, 1000) if k <= moved["idle"].max()])
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel("idle updates (log from 1)")
    far.set(title="distance from where it stopped", ylabel="in usual updates")
    long.set(title="when it learns again", xlabel="updates after idling", ylabel="length, never idle = 1",
             ylim=(0, None))
    known.set(title="what it still knows", ylabel="test accuracy (%)")
    fig.legend(*(a + b for a, b in zip(far.get_legend_handles_labels(), long.get_legend_handles_labels())),
               loc="outside lower center", ncols=3)
    return fig
