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
import seaborn as sns
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from ..statistics import correlation, paired_by_seed
from .figures import curves
from .style import (
    LINES, PAGE, apply_style, by_arm, colour, legend_below, panels, say_n, settings_of, style_of, t_interval,
)

Values = Mapping[str, np.ndarray]


def _logarithmic(axis: Axis) -> None:
    """Set a logarithmic scale in plain numbers; more ticks on a short one. What is drawn must be drawn before."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 5 * low else (1, 1.5, 2, 3, 4, 5, 7)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def planes(titled: Mapping[str, Values], highest: float = 4.0) -> Figure:
    """Draw filter-normalised planes side by side: above the surfaces, below their contours; one scale for all.

    Args:
        titled: title -> "steps" [n], "loss" [n, n] in nats.
        highest: losses above it are drawn as it, nats.
    """
    apply_style()
    fig = plt.figure(figsize=(PAGE, 1.9 + PAGE / max(len(titled), 1)), layout="constrained")
    levels = np.linspace(0, highest, 17)
    for k, (title, values) in enumerate(titled.items()):
        a, b = np.meshgrid(values["steps"], values["steps"], indexing="ij")
        loss = np.clip(values["loss"], None, highest)
        ax = fig.add_subplot(2, len(titled), k + 1, projection="3d")
        ax.plot_surface(a, b, loss, cmap="viridis", vmin=0, vmax=highest, lw=0, rcount=41, ccount=41)
        ends = [values["steps"][0], 0, values["steps"][-1]]
        ax.set(title=title, zlim=(0, highest), xticks=ends, yticks=ends)
        flat = fig.add_subplot(2, len(titled), len(titled) + k + 1)
        drawn = flat.contourf(a, b, loss, levels, cmap="viridis")
        flat.contour(a, b, loss, levels[1:-1:2], colors="white", linewidths=0.4)
        flat.plot(0, 0, "+", color="red")
        flat.set(aspect="equal", xlabel="first direction", ylabel="second direction" if k == 0 else "")
    if titled:
        fig.colorbar(drawn, ax=fig.axes[1::2], label=f"loss (nats, cut at {highest:g})", shrink=0.8)
    return fig


def lines(frame: pd.DataFrame, found: Mapping[str, Values], x: str, y: str, labels: tuple[str, str],
          pick=lambda values: values) -> Figure:
    """Draw a curve for each arm: mean over seeds, its 95% t interval as a band.

    Args:
        frame: from `tables.runs`, of one notebook.
        found: run id -> values.
        x, y: names of the values; y may have further axes, over which the mean is taken.
        labels: of the two axes.
        pick: chooses among a run's values first.
    """
    parts = [frame[["setting", "arm", "seed"]][:0].assign(x=0.0, y=0.0)]
    for _, run in frame[frame["run_id"].isin(list(found))].iterrows():
        values = pick(found[run["run_id"]])
        means = np.reshape(values[y], (len(values[x]), -1)).mean(axis=1)
        parts.append(pd.DataFrame({"x": values[x], "y": means}).assign(**run[["setting", "arm", "seed"]]))
    tidy = pd.concat(parts if len(parts) == 1 else parts[1:], ignore_index=True)
    return curves(tidy, list(dict.fromkeys(tidy["arm"])), "x", "y", labels)


def quotients(frame: pd.DataFrame, arms: Sequence[str], columns: Mapping[str, str], reference: str = "baseline",
              most: float = 4.0) -> Figure:
    """Draw arms as multiples of a reference, paired by seed: a row for each measure, mean and 95% t interval.

    Args:
        frame: from `tables.measured`, of one notebook; the measures are positive.
        arms: that are drawn, at most five; those without records are left out.
        columns: measure -> label.
        most: multiples above it, or below its inverse, are cut.
    """
    settings, arms = settings_of(frame), [arm for arm in arms if arm in set(frame["arm"])]
    fig, axes = panels(settings, [0.4 + 0.45 * len(columns)] * len(settings))
    counts, ends = {}, [1.5]
    for ax, setting in zip(axes, settings):
        part = frame[frame["setting"] == setting]
        part = part.assign(**{name: np.log(part[name]) for name in columns})
        found = {(row, arm): paired_by_seed(part, arm, reference, name)
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
        reach = min(most, max(ends))
        ax.set(xscale="log", xlim=(1 / reach, reach), xlabel=f"multiple of {reference}")
        _logarithmic(ax.xaxis)
    legend_below(fig, arms, say_n(counts))
    return fig


def scatter(frame: pd.DataFrame, x: str, label: str) -> Figure:
    """Draw test accuracy against a measure, each run a point, and a regression on the measure's logarithm.

    The title gives the correlation over all runs.

    Args:
        frame: a line a run: setting, arm, test_accuracy and the measure.
        x: column of the measure, drawn on a logarithmic scale.
        label: of the axis.
    """
    settings, arms = settings_of(frame), list(dict.fromkeys(frame["arm"]))
    fig, axes = panels(settings, [2.4] * len(settings))
    for ax, setting in zip(axes, settings):
        part = frame[frame["setting"] == setting]
        sns.regplot(part, x=x, y="test_accuracy", logx=True, scatter=False, ci=None, color="#b0b0b0", ax=ax)
        sns.scatterplot(part, x=x, y="test_accuracy", **by_arm(arms), s=20, ax=ax)
        _logarithmic(ax.xaxis)
        ax.set(xlabel=label, ylabel="test accuracy (%)")
        r = correlation(np.log(part[x]), part["test_accuracy"])
        ax.set_title(f"{setting}\nr = {r:.2f}, {len(part)} runs")
        ax.grid()
    legend_below(fig, arms)
    return fig


def spectra(titled: Mapping[str, Values]) -> Figure:
    """Draw spectral densities of Hessians, one line each, on a logarithmic scale."""
    fig, (ax,) = panels([""], [2.1])
    for arm, values in titled.items():
        ax.plot(values["eigenvalues"], values["density"], color=colour(arm), label=arm)
    ax.set(yscale="log", ylim=(1e-7, 1), xlabel="eigenvalue of the Hessian", ylabel="density")
    ax.legend()
    return fig


def trajectories(titled: Mapping[str, Values], columns: Mapping[str, str]) -> Figure:
    """Draw the curvature of student and teacher along training, a panel for each measure.

    Bars are two standard errors, where there are some ("<measure>_se").

    Args:
        titled: arm -> "role", "epoch" and the measures, one entry a point.
        columns: measure -> label.
    """
    fig, axes = panels(list(columns.values()), [1.9] * len(columns))
    styles = {f"{arm}, {role}": (*style_of(arm), dashes) for arm in titled
              for role, dashes in (("student", "-"), ("teacher", ":"))}
    for ax, name in zip(axes, columns):
        for line, (shade, marker, dashes) in styles.items():
            arm, _, role = line.rpartition(", ")
            values, of = titled[arm], titled[arm]["role"] == role
            error = 2 * values[f"{name}_se"][of] if f"{name}_se" in values else None
            ax.errorbar(values["epoch"][of], values[name][of], error, fmt=dashes + marker, color=shade, elinewidth=0.6)
        _logarithmic(ax.yaxis)
        ax.set(xlabel="epochs of its own updates")
        ax.grid(axis="y")
    legend_below(fig, styles, styles=styles, ncols=1)
    return fig


def bars(frame: pd.DataFrame, condition: str, column: str, label: str) -> Figure:
    """Draw a group of bars for each condition, a bar for each arm: mean over seeds and 95% t interval.

    Args:
        frame: a line a run and condition: setting, arm, seed, the condition and the column.
        condition: column that names the groups.
        column, label: what is drawn, and the axis.
    """
    means = frame.groupby(["setting", "arm", condition, "seed"], sort=False)[column].mean().reset_index()
    settings, arms = settings_of(frame), list(dict.fromkeys(frame["arm"]))
    many = frame[condition].nunique() > 5  # then their names stand upright
    fig, axes = panels(settings, [2.1 + 0.7 * many] * len(settings), width=PAGE)
    counts = {}
    for ax, setting in zip(axes, settings):
        part = means[means["setting"] == setting]
        groups = list(dict.fromkeys(frame.loc[frame["setting"] == setting, condition]))
        sns.barplot(part, x=condition, y=column, order=groups, **by_arm(dict.fromkeys(part["arm"]), style=False),
                    errorbar=t_interval, err_kws={"linewidth": 0.7}, saturation=1, ax=ax)
        ax.set_xticks(range(len(groups)), [str(group).replace("_", " ") for group in groups], rotation=90 * many)
        ax.set(xlabel="", ylabel=label)
        ax.grid(axis="y")
        counts[ax] = part.groupby(["arm", condition]).size()
    legend_below(fig, arms, f"mean over seeds; {say_n(counts)}", ncols=3)
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
