"""Records -> figures, all in one style: legible at half a page's width, the same colour and marker for the
same method everywhere (Okabe and Ito's colours, safe for colour-blind readers), n and the kind of interval on
them.

Figures come from pyplot: a notebook shows them at the end of their cell. Nothing here needs torch.
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
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..errors import InputError
from ..lab import claims
from ..lab.arms import CONTROL_INTERVAL, lag_name
from ..lab.study import Row
from ..recipes import Recipe
from ..schedule import Event, leads
from ..statistics import Interval, mean_interval, paired_by_seed
from ..store import records

COLUMN, PAGE = 3.4, 7.0  # inches: half a page's width, and a page's
STYLE = {"font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 9, "axes.titlelocation": "left",
         "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
         "grid.color": "#e5e5e5", "legend.frameon": False, "legend.title_fontsize": 8, "lines.linewidth": 1.2,
         "lines.markersize": 4, "figure.dpi": 150}
LOOKS = {  # arm: colour, marker
    "baseline": ("#666666", "o"), "label smoothing": ("#F0C400", "d"), "SAM": ("#7A1FA2", "h"),
    "baseline, equal compute": ("#117733", "8"),
    "online KD": ("#D55E00", "s"), "online KD, asked before": ("#E69F00", "<"),
    "online KD, eval mode": ("#F4A582", "s"), "spaced KD, eval mode": ("#A6BDDB", ">"),
    "offline KD": ("#001D33", "P"), "shuffled teacher": ("#8C6D31", "X"),
    "EMA teacher": ("#66A61E", "p"), "own last epoch": ("#E7298A", "D"), "own last update": ("#FF9DA7", "v"),
    "self KD": ("#CC79A7", "v"), "exits, labels only": ("#B07A00", "X"),
    "clean": ("#00629a", ">"), "clean, s=0": ("#D55E00", "s"),  # spaced and online KD, of which a switch is turned
    "lag": ("#00629a", "o"), "lag, alpha tuned": ("#00629a", "D"), "lag, moving": ("#56B4E9", "^"),
    "lag, other batches": ("#C58B00", "s"), "lag, eval mode": ("#882255", "v"),
    "IE-KD": ("#E2B93B", "s"), "spaced IE-KD": ("#A86400", ">"), "offline IE-KD": ("#4F2F00", "P"),
    "DML": ("#999933", "D"), "spaced DML": ("#55621A", "<"),
    "DML, eval mode": ("#CCCC7A", "D"), "spaced DML, eval mode": ("#A3B05A", "<"),
    "baseline, images of ED": ("#8DA0CB", "8"),
    "online ED": ("#44AA99", "s"), "spaced ED": ("#117766", ">"), "offline ED": ("#083B33", "P"),
    "online schools": ("#B39DDB", "s"), "spaced schools": ("#7E57C2", ">"), "growth without KD": ("#A1887F", "X"),
    "idle updates, no KD": ("#E6AB02", "X"), "released online KD": ("#E7A0A6", "s"),
    "released spaced KD": ("#B2182B", "p"), "released, no idle updates": ("#67001F", "<"),
    "dropout": ("#332288", "s"), "spaced dropout": ("#6A5ACD", ">"), "dropout, equal mean": ("#9C93D6", "d"),
    "EMA's network": ("#444444", "o"), "EMA": ("#8A4B08", "s"), "spaced EMA": ("#C77C11", ">"),
    "EMA, equal horizon": ("#E2B266", "d")}
OTHER = "#7A5C00", "h"  # an arm that has no look of its own, such as one of the audit
COLOURS = {"inherit": "#0072B2", "explore": "#D55E00", "plain": "#666666"}  # in drawings and diagnoses of IE-KD
SPACED = LinearSegmentedColormap.from_list("spaced", ["#8CCBF0", "#0072B2", "#003A61"])
SPACED_SELF = LinearSegmentedColormap.from_list("spaced self", ["#7FD9BC", "#009E73", "#00452F"])
SPACED_MARKERS = {0.25: "v", 0.5: "^", 1.0: "<", 1.5: ">", 2.0: "d", 3.0: "p", 4.0: "H"}


def style() -> None:
    """Make this module's look matplotlib's default, whatever was set before; every figure here calls it."""
    plt.style.use(["default", STYLE])


def interval_of(arm: str) -> float | None:
    """Space interval of an arm in epochs, read from its name; None where the method has none.

    >>> [interval_of(arm) for arm in ("self KD", "spaced KD s=1.5", "offline KD", "baseline")]
    [0.0, 1.5, inf, None]
    """
    if arm in ("online KD", "self KD"):
        return 0.0
    found = re.search(r"^spaced (?:self )?KD s=([\d.]+)$", arm)
    return float(found[1]) if found else math.inf if arm == "offline KD" else None


def look(arm: str) -> tuple[str, str]:
    """Colour and marker of a method. Spaced ones have one hue that darkens with s, from 0.25 to 4 epochs on a
    logarithmic scale; arms of the lead-lag law have one look for all offsets."""
    arm = re.sub(r"^teacher [+-][\d.]+", "lag", arm)
    plain, s = re.sub(r" s=.*", "", arm), interval_of(arm)
    if not arm.startswith("spaced") or s is None:
        return LOOKS.get(arm, LOOKS.get(plain, OTHER))
    ramp = SPACED_SELF if "self" in arm else SPACED
    return to_hex(ramp(math.log2(s / 0.25) / 4)), SPACED_MARKERS.get(s, "^")


def colour(arm: str) -> str:
    """The colour of a method, as "#rrggbb"."""
    return look(arm)[0]


def _panels(titles: Sequence[str], heights: Sequence[float]) -> tuple[Figure, list[plt.Axes]]:
    """A figure with a panel for each title, one above the other; in two columns from four on. heights: of the
    panels with ticks and title, inches; what is said of the whole figure takes another half inch."""
    style()
    columns, width = (2, PAGE) if len(titles) > 3 else (1, COLUMN)
    rows = [max(heights[at:at + columns]) for at in range(0, len(titles), columns)] or [1.0]
    fig, grid = plt.subplots(len(rows), columns, figsize=(width, sum(rows) + 0.5), squeeze=False,
                             layout="constrained", gridspec_kw={"height_ratios": rows})
    for ax, title in zip(grid.flat, titles):
        ax.set_title(textwrap.fill(title, 24))  # names of arms leave little room
    for ax in grid.flat[len(titles):]:
        ax.set_axis_off()
    if not titles:
        fig.text(0.5, 0.5, "no records", ha="center")
    return fig, list(grid.flat[:len(titles)])


def _settings(frame: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(frame["setting"]))


def _by_seed(frame: pd.DataFrame, setting: str, arm: str, reference: str | None = None) -> pd.Series:
    """Test accuracies of an arm, percent, by seed; minus the reference's, where both have the seed."""
    chosen = frame[(frame["setting"] == setting) & (frame["arm"] == arm)]
    values = chosen.set_index("seed")["test_accuracy"].sort_index()
    return (values - _by_seed(frame, setting, reference)).dropna() if reference else values


def _say_n(counts: Iterable[int] | dict[plt.Axes, Iterable[int]]) -> str:
    """What every figure says of its seeds; panels (by axes) that differ in n say so in their titles."""
    if isinstance(counts, dict):
        panels = {ax: set(found) - {0} for ax, found in counts.items()}
        counts = set().union(*panels.values())
        if len(set(map(frozenset, panels.values())) - {frozenset()}) > 1:
            for ax, found in panels.items():
                ax.set_title(ax.get_title(loc="left") + f" (n = {', '.join(map(str, sorted(found)))})" * bool(found))
            return "95% t interval over seeds"
    counts = sorted(set(counts) - {0})
    if not counts:
        return "no records"
    n = f"n = {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "")
    return n + (": one seed, no interval" if counts == [1] else ", 95% t interval over seeds")


# Schedules

def schedule(events: Iterable[Event], batches_per_epoch: int) -> Figure:
    """Picture of one schedule, see `schedules`."""
    return schedules([("", events)], batches_per_epoch)


def schedules(titled: Sequence[tuple[str, Iterable[Event]]], batches_per_epoch: int,
              roles: tuple[str, str] = ("teacher", "student")) -> Figure:
    """For each schedule when teacher and student are updated, and by how many updates the teacher is ahead: a
    line, with a dot and the mean at the updates of the student.

    Time runs in updates. Blocks alternate in colour; a band joins each block of the teacher to its replay.

    Args:
        titled: title and events, see `schedule.spaced_schedule`.
        batches_per_epoch: L, for the mean lead in epochs.
        roles: what the two lanes are called.
    """
    style()
    fig, axes = plt.subplots(2 * len(titled), 1, figsize=(COLUMN, 1.55 * len(titled) + 0.35), squeeze=False,
                             layout="constrained", gridspec_kw={"height_ratios": [1, 0.9] * len(titled)})
    for (title, events), lanes, lead in zip(titled, axes[::2, 0], axes[1::2, 0]):
        events = list(events)
        times = np.cumsum([0] + [event.kind != "epoch" for event in events])[:-1]  # updates before each event
        lanes.set_title(title)
        _draw_lanes(lanes, events, times, roles)
        _draw_lead(lead, events, times, batches_per_epoch)
        _draw_epochs(lanes, lead, [(t, e.index) for t, e in zip(times, events) if e.kind == "epoch"])
    axes[-1, 0].set_xlabel("time, in updates; ticks: epochs, with their replays")
    return fig


def _draw_lanes(ax: plt.Axes, events: list[Event], times: np.ndarray,
                roles: tuple[str, str] = ("teacher", "student")) -> None:
    spans: dict[tuple, list[int]] = {}  # (block, height of the lane) -> times of its updates
    for time, event in zip(times, events):
        if event.kind != "epoch":
            spans.setdefault((event.block, float(event.kind != "learn")), []).append(time)
    for (block, y), span in spans.items():
        shade, taught = ("#56B4E9", "#F0C400")[block % 2], spans.get((block, 1.0))
        ax.broken_barh([(time, 1) for time in span], (y, 0.5), facecolor=shade, edgecolor="white",
                       lw=0.6 if len(events) < 150 else 0)
        if y == 0 and taught:
            corners = [(taught[0], 1), (taught[-1] + 1, 1), (span[-1] + 1, 0.5), (span[0], 0.5)]
            ax.add_patch(plt.Polygon(corners, facecolor=shade, alpha=0.3, lw=0))
    lanes = dict(zip((1.0, 0.0), roles))
    used = sorted({y for _, y in spans})
    ax.set(ylim=(-0.1, 1.6), yticks=[y + 0.25 for y in used], yticklabels=[lanes[y] for y in used])
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)


def _draw_lead(ax: plt.Axes, events: list[Event], times: np.ndarray, batches_per_epoch: int) -> None:
    if not any(event.kind == "teach" for event in events):
        ax.text(0.5, 0.5, "no updates of a teacher alone", transform=ax.transAxes, ha="center", va="center")
        ax.set_yticks([])
        return
    step = np.array([(event.kind == "teach") - (event.kind == "learn") for event in events])
    ax.plot(times, np.cumsum(step) - step, color="black", lw=0.8)
    at_learning = leads(events)
    ax.plot(times[step < 0], at_learning, "k.", ms=3 if len(events) < 150 else 0)
    mean = sum(at_learning) / max(len(at_learning), 1)
    ax.axhline(mean, color="#555555", lw=1, ls="--")
    ax.set_title(f"mean lead {mean:.1f} updates = {mean / batches_per_epoch:.2f} epochs", fontsize=8,
                 loc="right", pad=2)
    ax.set_ylabel("lead")
    ax.set_ylim(1.15 * min([0, *at_learning]), 1.15 * max([1, *at_learning]))
    ax.yaxis.set_major_locator(MaxNLocator(3, integer=True))


def _draw_epochs(lanes: plt.Axes, lead: plt.Axes, ends: list[tuple[int, int]]) -> None:
    """A dotted line and a tick where an epoch ends, after a replay that falls there, at most six of them."""
    shown = ends[::-1][::math.ceil(len(ends) / 6) or 1]
    for ax in (lanes, lead):
        ax.set_xlim(0, ends[-1][0] if ends else None)
        for time, _ in shown:
            ax.axvline(time, color="#7f7f7f", lw=0.6, ls=":")
    lanes.set_xticks([])
    lead.set_xticks([time for time, _ in shown], [str(number) for _, number in shown])


# Arms

def arms(frame: pd.DataFrame, title: str = "") -> Figure:
    """Test accuracy of every arm: each seed a dot, a faint line through the dots of one seed, mean, interval.

    Args:
        frame: from `tables.runs`, of one notebook.
        title: of the whole figure.
    """
    return _forest(frame, None, "test accuracy (%)\ndots, lines: seeds", title)


def differences(frame: pd.DataFrame, reference: str = "baseline") -> Figure:
    """Differences of every arm to a reference, paired by seed: each pair a dot, mean, interval, zero marked.

    Args:
        frame: from `tables.runs`, of one notebook.
        reference: name of an arm.
    """
    return _forest(frame, reference, f"accuracy minus that of {reference} (points)\ndots: pairs")


def _forest(frame: pd.DataFrame, reference: str | None, label: str, title: str = "") -> Figure:
    """A row for each arm that a setting has: a dot for each seed, the mean and its interval just above."""
    settings = _settings(frame)
    arms = [list(dict.fromkeys(frame.loc[frame["setting"] == setting, "arm"])) for setting in settings]
    arms = [[arm for arm in names if arm != reference] for names in arms]
    fig, axes = _panels(settings, [0.5 + 0.27 * len(names) for names in arms])
    counts = {}
    for ax, setting, names in zip(axes, settings, arms):
        values = {arm: _by_seed(frame, setting, arm, reference) for arm in names}
        if reference:
            ax.axvline(0, color="black", lw=0.8)
        else:
            for _, line in pd.DataFrame(values).iterrows():  # NaN where an arm lacks the seed
                ax.plot(line[names], np.arange(len(names)) + 0.2, color="#d0d0d0", lw=0.5, zorder=1)
        for y, (arm, series) in enumerate(values.items()):
            ax.plot(series, np.full(len(series), y + 0.2), ".", color=colour(arm), alpha=0.7, ms=5, mew=0)
            _mark(ax, arm, mean_interval(series), y=y - 0.12)
        ax.set_yticks(range(len(names)), [textwrap.fill(name, 30) for name in names], linespacing=1.0)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x")
        counts[ax] = map(len, values.values())
    fig.suptitle(title, fontsize=9, fontweight="bold", x=0.01, ha="left")
    fig.supxlabel(f"{label}; {_say_n(counts)}", fontsize=8)
    return fig


def comparisons(table: pd.DataFrame, label: str, title: str = "") -> Figure:
    """Chosen paired differences with their intervals.

    Args:
        table: from `tables.differences`.
        label: its column that names a line.
        title: of the whole figure.
    """
    style()
    parts = list(table.groupby("Setting", sort=False)) if len(table) else []
    heights = [len(part) + 1.5 for _, part in parts] or [1]
    fig, axes = plt.subplots(len(heights), 1, figsize=(PAGE, 0.2 * sum(heights) + 0.8), squeeze=False, sharex=True,
                             layout="constrained", gridspec_kw={"height_ratios": heights})
    if not parts:
        axes[0, 0].set_axis_off()
    for ax, (setting, part) in zip(axes[:, 0], parts):
        mean, low, high = (part[f"Difference{name}"] for name in (" (points)", ": low", ": high"))
        ax.errorbar(mean, range(len(part)), xerr=[mean - low, high - mean], fmt="o", capsize=2,
                    color=colour("spaced KD s=1.5"))
        ax.axvline(0, color="black", lw=0.8)
        ax.set_title(setting)
        ax.set_yticks(range(len(part)), part[label])
        ax.set_ylim(len(part) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x")
    fig.suptitle(title, fontsize=9, fontweight="bold", x=0.01, ha="left")
    fig.supxlabel(f"points; {_say_n(table['Difference: pairs'] if len(table) else [])}", fontsize=8)
    return fig


def _mark(ax: plt.Axes, arm: str, i: Interval, x: float | None = None, y: float | None = None) -> None:
    """Mean and interval, along x at a given y, or along y at a given x; nothing for n = 0."""
    shade, marker = look(arm)
    half = {"xerr" if x is None else "yerr": i.mean - i.low} if i.n > 1 else {}
    if i.n:
        ax.errorbar(i.mean if x is None else x, i.mean if y is None else y, **half, fmt=marker, color=shade,
                    capsize=2, mec="white", mew=0.4, ms=5.5)


# The lead-lag law

LAGS = {"frozen": ("lag", "-"), "moving": ("lag, moving", "--"), "other batches": ("lag, other batches", ":"),
        "eval mode": ("lag, eval mode", "-")}  # kind: whose look, and its line


def lead_lag(frame: pd.DataFrame, rows: Iterable[Row], curve: tuple[Sequence, Sequence] | None = None) -> Figure:
    """Test accuracy against the teacher's offset, minus that of offset 0 of the same kind, paired by seed; one panel
    for each weight of the teacher, one for eval mode. Below: the sign of that difference by each theory.

    Args:
        frame: from `tables.runs`, of one setting.
        rows: of its grid; offset and kind are read from their recipes.
        curve: offsets in epochs, and the linear model's variance there, see `theory.lead_lag`.
    """
    panels = _by_offset(frame, {row.recipe.run_id: row.recipe for row in rows})
    style()
    heights = [0.9 if by_running else 1.4 for _, by_running in panels] + [0.8] * bool(curve) + [0.75]
    fig, axes = plt.subplots(len(heights), 1, figsize=(COLUMN, sum(heights) + 1.0), sharex=True, squeeze=False,
                             layout="constrained", gridspec_kw={"height_ratios": heights})
    counts, drawn = [], {}
    for ax, ((alpha, by_running), kinds) in zip(axes[:, 0], panels.items()):
        for kind, arms in kinds.items():
            counts += _draw_kind(ax, kind, frame, arms, drawn)
        ax.set_title(f"α = {alpha:g}" + ", asked in eval mode" * by_running)
        ax.axhline(0, color="black", lw=0.8)
        ax.grid(axis="y")
    if panels:
        axes[len(panels) // 2, 0].set_ylabel("accuracy above offset 0 (points)")
    if curve:
        _draw_model(axes[-2, 0], *curve)
    _draw_signs(axes[-1, 0])
    axes[-1, 0].set_xlabel("teacher's offset (epochs)")
    fig.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=3, columnspacing=1.0,
               title=_say_n(counts))
    return fig


def _by_offset(frame: pd.DataFrame, recipes: dict[str, Recipe]) -> dict[tuple, dict[str, dict[float, str]]]:
    """(weight of the teacher, whether in eval mode) -> kind -> offset in epochs -> arm. Kinds without offset 0, or with
    nothing else, are left out; a teacher that moves has that of one that rests."""
    panels: dict[tuple, dict[str, dict[float, str]]] = {}
    for arm, run_id in zip(frame["arm"], frame["run_id"]):
        recipe = recipes[run_id]
        if recipe.method == "online_kd":
            kind = _kind(recipe)
            kinds = panels.setdefault((recipe.alpha, kind == "eval mode"), {})
            kinds.setdefault(kind, {})[recipe.interval] = arm
    for kinds in panels.values():
        if "moving" in kinds and 0.0 in kinds.get("frozen", {}):
            kinds["moving"][0.0] = kinds["frozen"][0.0]
    shown = {panel: {kind: dict(sorted(arms.items())) for kind, arms in kinds.items() if 0.0 in arms and len(arms) > 1}
             for panel, kinds in sorted(panels.items(), key=lambda item: item[0][::-1])}
    return {panel: kinds for panel, kinds in shown.items() if kinds}


def _kind(recipe: Recipe) -> str:
    if recipe.teacher_mode == "eval":
        return "eval mode"
    if recipe.replay == "fresh_batch":
        return "other batches"
    return "moving" if recipe.rule == "constant" else "frozen"


def _draw_kind(ax: plt.Axes, kind: str, frame: pd.DataFrame, arms: dict[float, str], drawn: dict) -> list[int]:
    """One curve, and for the first of a panel labels alone; how many pairs its points have."""
    name, dashes = LAGS[kind]
    found = {s: paired_by_seed(frame, arm, arms[0.0]) for s, arm in arms.items()}
    at, apart = np.array(list(found)), {"moving": -0.1, "other batches": 0.1}.get(kind, 0.0)
    mean, low, high = np.array([i[:3] for i in found.values()]).T
    shade, marker = look(name)
    main = kind in ("frozen", "eval mode")
    drawn[kind] = ax.errorbar(at + apart * (at != 0), mean, [mean - low, high - mean], color=shade, marker=marker,
                              ls=dashes, alpha=1.0 if main else 0.75, lw=1.4 if main else 0.9, elinewidth=0.7)
    if main and "baseline" in set(frame["arm"]):
        level = paired_by_seed(frame, "baseline", arms[0.0]).mean
        drawn["labels alone"] = ax.axhline(level, color=colour("baseline"), ls=(0, (5, 3)), lw=1)
    return [i.n for i in found.values()]


def _draw_model(ax: plt.Axes, offsets: Sequence[float], variance: Sequence[float]) -> None:
    ax.plot(offsets, variance, color="black")
    ax.invert_yaxis()
    ax.set_title("linear model: the student's variance, small is up", fontsize=8)


def _draw_signs(ax: plt.Axes) -> None:
    """What each theory says of a teacher behind, on the left, and ahead, on the right."""
    signs = {of.arm: of for of in claims.PREDICTIONS if of.reference == lag_name(0.0)}
    lines = {"predicted": {-1: "behind", 1: "ahead"}}
    for theory, name in {"ahead": "ahead helps", "frozen": "frozen helps", "linear": "linear model"}.items():
        said = {side: getattr(signs[lag_name(side * CONTROL_INTERVAL)], theory) for side in (-1, 1)}
        lines[name] = {side: {1: "+", -1: "−", 0: "0", None: ""}[sign] for side, sign in said.items()}
    for y, (name, words) in enumerate(lines.items()):
        ax.text(0, y, name, ha="center", va="center", fontweight="normal" if y else "bold")
        for side, word in words.items():
            ax.text(0.5 + 0.35 * side, y, word, ha="center", va="center", fontweight="bold",
                    transform=ax.get_yaxis_transform())
    ax.set(ylim=(len(lines) - 0.4, -0.6), yticks=[])
    ax.spines["left"].set_visible(False)


# Curves

def by_interval(frame: pd.DataFrame) -> Figure:
    """Paired difference to online KD (or to self KD where there is no online KD) against the space interval.

    Args:
        frame: from `tables.runs`, of one notebook. Offline KD, whose interval is the whole run, stands apart
            on the right. The scale is that of the square root, which keeps 0, 0.25 and 0.5 apart.
    """
    settings, reference = _settings(frame), "online KD" if "online KD" in set(frame["arm"]) else "self KD"
    spaced = {arm: interval_of(arm) for arm in dict.fromkeys(frame["arm"]) if interval_of(arm) is not None}
    right = 1.3 * max((s for s in spaced.values() if s < math.inf), default=0) or 1.0
    place = {arm: min(s, right) for arm, s in sorted(spaced.items(), key=lambda item: item[1])}
    fig, axes = _panels(settings, [1.6] * len(settings))
    counts = {}
    for ax, setting in zip(axes, settings):
        found = {arm: mean_interval(_by_seed(frame, setting, arm, reference)) for arm in place}
        drawn = {arm: i for arm, i in found.items() if i.n}
        ax.axhline(0, color="black", lw=0.8)
        joined = [arm for arm in drawn if spaced[arm] < math.inf]
        ax.plot([place[arm] for arm in joined], [drawn[arm].mean for arm in joined], color="#b0b0b0", zorder=1)
        for arm, i in drawn.items():
            _mark(ax, arm, i, x=place[arm])
        ax.set_xscale("function", functions=(lambda s: np.sign(s) * np.sqrt(np.abs(s)), lambda r: np.sign(r) * r ** 2))
        ax.set_xticks([place[arm] for arm in drawn], ["offline" if spaced[arm] == math.inf else f"{spaced[arm]:g}"
                                                      for arm in drawn], minor=False)
        ax.set_xlim(-0.01, 1.1 * right)
        ax.grid(axis="y")
        counts[ax] = [i.n for i in drawn.values()]
    fig.supylabel(f"points above {reference}", fontsize=8)
    fig.supxlabel("space interval s (epochs, root scale; offline apart)\n"
                 f"0: {reference}; {_say_n(counts)}", fontsize=8)
    return fig


def learning_curves(frame: pd.DataFrame, names: Sequence[str], column: str = "test_accuracy") -> Figure:
    """A number of every epoch, mean over seeds with its 95% t interval as a band.

    Args:
        frame: from `tables.epochs`, of one notebook.
        names: arms to draw; those without records are left out.
        column: of the frame; epochs without a value are left out.
    """
    settings = _settings(frame)
    fig, axes = _panels(settings, [2.0] * len(settings))
    counts, drawn = {ax: [] for ax in axes}, {}
    for ax, setting in zip(axes, settings):
        for arm in names:
            part = frame[(frame["setting"] == setting) & (frame["arm"] == arm)].dropna(subset=[column])
            found = {epoch: mean_interval(values) for epoch, values in part.groupby("epoch")[column]}
            if not found:
                continue
            mean, low, high = np.array([i[:3] for i in found.values()]).T
            shade, marker = look(arm)
            ax.fill_between(list(found), low, high, color=shade, alpha=0.12, lw=0)
            drawn[arm], = ax.plot(list(found), mean, color=shade, marker=marker,
                                  markevery=len(found) // 8 + 1)
            counts[ax] += [i.n for i in found.values()]
        ax.set(xlabel="epoch", ylabel=column.replace("_", " ") + " (%)" * ("accuracy" in column))
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.grid(axis="y")
    if drawn:
        fig.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=2,
                   title=f"mean over seeds; {_say_n(counts)}")
    return fig


# Pictures and files

def sheet(images: np.ndarray, columns: int, titles: Sequence[str] | None = None) -> Figure:
    """Pictures in a grid, a page wide.

    Args:
        images: uint8 [N, C, H, W], C = 1 or 3.
        columns: pictures in a row.
        titles: N short texts, one above each picture; broken at blanks and underscores.

    Raises:
        InputError: not such an array, or another number of titles.
    """
    images = np.asarray(images)
    drawable = images.dtype == np.uint8 and images.ndim == 4 and images.shape[1] in (1, 3) and len(images)
    if not drawable or columns < 1:
        raise InputError(f"images of {images.dtype} {list(images.shape)} in {columns} columns cannot be "
                         "drawn: give uint8 [N, C, H, W] with C = 1 or 3, N and columns at least 1.")
    if titles is not None and len(titles) != len(images):
        raise InputError(f"{len(titles)} titles for {len(images)} pictures: give one for each, or none.")
    style()
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
    """Keep a figure as a PNG whose metadata, under "Description", name its records. The same figure gives the same
    bytes.

    Raises:
        InputError: the folder cannot be written to.
    """
    fig.draw_without_rendering()
    fig.set_layout_engine("none")  # the layout depends a little on the resolution: settle it once
    content = io.BytesIO()
    shows = json.dumps({"figure": path.stem, "runs": sorted(set(run_ids))})
    fig.savefig(content, format="png", dpi=200, metadata={"Software": None, "Description": shows})
    records.write_atomically(path, content.getvalue())
