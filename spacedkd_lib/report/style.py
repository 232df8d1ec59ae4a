"""The style of all figures: sizes, a colour and marker for each arm, panels, and what is said of n.

A colour means one thing in the whole series. Figures are legible at half a page's width. No torch here.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from typing import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure

from ..statistics import mean_interval

COLUMN, PAGE = 3.4, 7.0  # inches: half a page's width, and a page's
STYLE = {"font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 9, "axes.titlelocation": "left",
         "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
         "grid.color": "#e5e5e5", "legend.frameon": False, "legend.title_fontsize": 8, "lines.linewidth": 1.2,
         "lines.markersize": 4, "figure.dpi": 150, "figure.titlesize": 9, "figure.titleweight": "bold"}
LINES = ("#4C72B0", "#C44E52", "#55A868", "#8172B3")  # of what is no arm; seaborn's palette "deep"
COLOURS = {"inherit": LINES[0], "explore": LINES[1], "plain": "#808080"}  # in drawings and diagnoses of IE-KD
INTERVALS = {0.25: "v", 0.5: "^", 1.0: "<", 1.5: ">", 2.0: "d", 3.0: "p", 4.0: "H"}  # epochs -> marker


def _ramp(family: str, *shades: str) -> dict[str, tuple[str, str]]:
    """Spaced arms of one hue that darkens with the interval, from 0.25 to 4 epochs on a logarithmic scale."""
    ramp = LinearSegmentedColormap.from_list(family, shades)
    return {f"{family} s={s:g}": (to_hex(ramp(math.log2(s / 0.25) / 4)), marker) for s, marker in INTERVALS.items()}


ARM_STYLES = {  # arm -> colour, marker; of the lead-lag law, whose arms are points of curves, by family
    "teacher": ("#2E8B57", "s"), "student": ("#9B6BB8", "o"),  # no arms, but the two roles of every drawing
    **_ramp("spaced KD", "#8CCBF0", "#0072B2", "#003A61"), **_ramp("spaced self KD", "#7FD9BC", "#009E73", "#00452F"),
    "baseline": ("#666666", "o"), "label smoothing": ("#F0C400", "d"), "SAM": ("#7A1FA2", "h"),
    "baseline, equal compute": ("#1A6B2F", "8"),
    "online KD": ("#D55E00", "s"), "online KD, asked before": ("#E69F00", "<"),
    "online KD, at spaced KD's values": ("#A84300", "s"), "spaced KD, at its rival's values": ("#4F9BD9", ">"),
    "online KD, asked before, at spaced KD's values": ("#B8860B", "<"),
    "online KD from epoch 1.5, at spaced KD's values": ("#C4663A", "D"),
    "online KD, eval mode": ("#F4A582", "s"), "spaced KD, eval mode": ("#A6BDDB", ">"),
    "offline KD": ("#001D33", "P"), "shuffled teacher": ("#8C6D31", "X"),
    "EMA teacher": ("#66A61E", "p"), "own last epoch": ("#E7298A", "D"), "itself as teacher": ("#FF9DA7", "v"),
    "self KD": ("#CC79A7", "v"), "exits, labels only": ("#B07A00", "X"),
    "baseline, at SAM's values": ("#A8A8A8", "o"), "baseline, at online KD's values": ("#8C8C8C", "o"),
    "exits, labels only, at self KD's values": ("#D9A441", "X"),
    "lag, at spaced KD's values": ("#D1495B", "o"), "lag, moving, at spaced KD's values": ("#EF8FA0", "^"),
    "lag": ("#2B5D8A", "o"), "lag, alpha tuned": ("#5A86B0", "D"), "lag, moving": ("#56B4E9", "^"),
    "lag, other batches": ("#C58B00", "s"), "lag, eval mode": ("#882255", "v"),
    "IE-KD": ("#E2B93B", "s"), "spaced IE-KD s=1.5": ("#A86400", ">"), "offline IE-KD": ("#4F2F00", "P"),
    "DML": ("#999933", "D"), "spaced DML s=1.5": ("#55621A", "<"),
    "DML, eval mode": ("#CCCC7A", "D"), "spaced DML, eval mode s=1.5": ("#A3B05A", "<"),
    "baseline, images of ED": ("#8DA0CB", "8"),
    "online ED": ("#44AA99", "s"), "spaced ED s=1.5": ("#117766", ">"), "offline ED": ("#083B33", "P"),
    "online schools": ("#B39DDB", "s"), "spaced schools s=1.5": ("#7E57C2", ">"), "growth without KD": ("#A1887F", "X"),
    "idle updates, no KD s=1.5": ("#E6AB02", "X"), "released online KD": ("#E7A0A6", "s"),
    "released spaced KD s=1.5": ("#B2182B", "p"), "released, no idle updates s=1.5": ("#67001F", "<"),
    "dropout": ("#332288", "s"), "spaced dropout": ("#6A5ACD", ">"), "dropout, equal mean": ("#9C93D6", "d"),
    "EMA's network": ("#444444", "o"), "EMA": ("#8A4B08", "s"), "spaced EMA s=0.1": ("#C77C11", ">"),
    "EMA, equal horizon": ("#E2B266", "d")}
ARM_STYLES |= {"clean": ARM_STYLES["spaced KD s=1.5"], "clean, s=0": ARM_STYLES["online KD"]}  # the same runs
OTHERS, MARKERS = ("#7A5C00", "#A58A3C", "#4A3800"), "hoPs*X<d^>v8pDH"  # arms without a style, such as audited switches


def styles_of(arms: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each arm of one figure. Arms without a style differ in their markers first."""
    arms = list(dict.fromkeys(arms))
    spare = itertools.cycle(itertools.product(OTHERS, MARKERS))
    return {arm: ARM_STYLES[arm] if arm in ARM_STYLES else next(spare) for arm in arms}


def style_of(arm: str) -> tuple[str, str]:
    """Colour, as "#rrggbb", and marker of an arm."""
    return styles_of([arm])[arm]


def colour(arm: str) -> str:
    """Return the colour of an arm, as "#rrggbb"."""
    return style_of(arm)[0]


def by_arm(arms: Iterable[str], style: bool = True) -> dict:
    """Seaborn's arguments for a plot whose hue is the arm. style: the plot tells arms by markers, too."""
    styles = styles_of(arms)
    shades, markers = ({arm: of[k] for arm, of in styles.items()} for k in (0, 1))
    options = dict(hue="arm", hue_order=list(styles), palette=shades, legend=False)
    return options | (dict(style="arm", style_order=list(styles), markers=markers) if style else {})


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's 95% interval of a mean over seeds, as seaborn's `errorbar`."""
    return mean_interval(values)[1:3]


def apply_style() -> None:
    """Make this module's style matplotlib's default, whatever was set before. Every figure here calls it."""
    plt.style.use(["default", STYLE])


def panels(titles: Sequence[str], heights: Sequence[float], columns: int = 0, width: float = 0.0,
           **options) -> tuple[Figure, list[plt.Axes]]:
    """Make a figure with a panel for each title; without panels it says "no records".

    Args:
        heights: of the panels with ticks and title, inches; what is said of the whole figure takes another half inch.
        columns: 0: two from four panels on. width: inches; 0: half a page, or a page for several columns.
        options: of `plt.subplots`.
    """
    apply_style()
    columns = columns or (2 if len(titles) > 3 else 1)
    rows = [max(heights[at:at + columns]) for at in range(0, len(titles), columns)] or [1.0]
    width = width or (PAGE if columns > 1 else COLUMN)
    fig, grid = plt.subplots(len(rows), columns, figsize=(width, sum(rows) + 0.5), squeeze=False,
                             layout="constrained", gridspec_kw={"height_ratios": rows}, **options)
    for ax, title in zip(grid.flat, titles):
        ax.set_title(textwrap.fill(title, int(24 * width / columns / (COLUMN - 0.1))) if title else "")
    for ax in grid.flat[len(titles):]:
        ax.set_axis_off()
    if not titles:
        fig.text(0.5, 0.5, "no records", ha="center")
    return fig, list(grid.flat[:len(titles)])


def say_n(counts: Iterable[int] | Mapping[plt.Axes, Iterable[int]]) -> str:
    """Say what every figure says of its seeds; panels (by axes) that differ in n say so in their titles."""
    if isinstance(counts, Mapping):
        found = {ax: set(n) - {0} for ax, n in counts.items()}
        counts = set().union(*found.values())
        if len(set(map(frozenset, found.values())) - {frozenset()}) > 1:
            for ax, n in found.items():
                ax.set_title(ax.get_title(loc="left") + f" (n = {', '.join(map(str, sorted(n)))})" * bool(n))
            return "95% t interval over seeds"
    counts = sorted(set(counts) - {0})
    if not counts:
        return "no records"
    n = f"n = {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "")
    return n + (": one seed, no interval" if counts == [1] else ", 95% t interval over seeds")


def legend_below(fig: Figure, names: Iterable[str], title: str = "", styles: Mapping | None = None) -> None:
    """One legend for all panels. styles: name -> colour, marker and, where it matters, dashes; or those of arms."""
    styles = styles or styles_of(names)
    marks = [plt.Line2D([], [], color=styles[name][0], marker=styles[name][1],
                        ls=styles[name][2] if len(styles[name]) > 2 else "") for name in names]
    if marks:
        fig.legend(marks, list(names), loc="outside lower center", title=title, ncols=2)


def alt_text(fig: Figure) -> str:
    """Describe a figure for a screen reader: of each panel its title, its axes and what its legend names."""
    panels = []
    for ax in fig.axes:
        legend = [text.get_text() for text in ax.get_legend().get_texts()] if ax.get_legend() else []
        legend += [] if ax.axison else [text.get_text() for text in ax.texts if text.get_text()]  # of a drawing
        parts = {"": ax.get_title(), "x: ": ax.get_xlabel(), "y: ": ax.get_ylabel(), "shown: ": ", ".join(legend)}
        panels.append("; ".join(f"{name}{part}" for name, part in parts.items() if part))
    words = [text.get_text() for text in fig.texts]
    for legend in fig.legends:
        words.append("shown: " + ", ".join(text.get_text() for text in legend.get_texts()))
    told = " ".join(". ".join(filter(None, [*words, *dict.fromkeys(panels)])).split())
    return f"Figure of {len(fig.axes)} panel{'s' * (len(fig.axes) > 1)}. {told}".strip()
