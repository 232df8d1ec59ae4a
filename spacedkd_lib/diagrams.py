"""How the other methods work, as pictures: a student that grows from grade to grade, and when who learns.

In the style of `figures`; nothing here needs torch. Taught in notebooks/11_education_distillation.ipynb.
"""

from __future__ import annotations

from typing import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from .figures import PAGE, _draw_epochs, _draw_lanes, _mark, _say_n, look, style
from .recipes import InputError
from .schedule import Course, Event
from .statistics import mean_interval

BODY, HEAD, TEACHER = "#BFE3F5", "#FFE08A", "#CDEBDD"


def growing_student(depths: Sequence[int], outputs: Sequence[int], schools: Sequence[int]) -> Figure:
    """What of the network each grade uses, and who teaches it; dashed: there already, but not in use yet.

    Args:
        depths: stages in use, grade by grade.
        outputs: of each grade's head.
        schools: classes of each group, which has a teacher of its own.

    Raises:
        InputError: not one of each for every grade.
    """
    if not len(depths) == len(outputs) == len(schools) or not depths:
        raise InputError(f"{len(depths)} depths, {len(outputs)} heads and {len(schools)} schools make no grades: give "
                         "one of each for every grade, at least one.")
    style()
    columns, stages = min(len(depths), 3), max(depths)
    rows = -(-len(depths) // columns)
    high = max(stages + 3, len(schools) * 1.5)  # in boxes of a stage
    fig, axes = plt.subplots(rows, columns, figsize=(PAGE, rows * (0.24 * high + 0.4)), squeeze=False,
                             layout="constrained")
    for grade, ax in enumerate(axes.flat, start=1):
        ax.set_axis_off()
        ax.set(xlim=(0, 2.1), ylim=(-0.1, high + 0.1), xticks=[], yticks=[])
        if grade <= len(depths):
            ax.set_title(f"grade {grade}: {outputs[grade - 1]} classes")
            _draw_student(ax, depths[grade - 1], stages, outputs[grade - 1], "head" if grade == len(depths) else
                          "reference head")
            for k, classes in enumerate(schools):
                _box(ax, 1.1, 1.5 * k, 1.5, f"teacher {k + 1}\n{classes} classes", TEACHER, used=k < grade)
    return fig


def _box(ax: plt.Axes, x: float, y: float, height: float, text: str, shade: str, used: bool = True) -> None:
    ax.add_patch(Rectangle((x, y), 0.95, height - 0.15, facecolor=shade if used else "white", lw=0.8,
                           edgecolor="black" if used else "#999999", ls="-" if used else "--"))
    ax.text(x + 0.475, y + height / 2 - 0.075, text, ha="center", va="center",
            color="black" if used else "#666666", linespacing=1.15)


def _draw_student(ax: plt.Axes, depth: int, stages: int, outputs: int, head: str) -> None:
    """From below: stem and stages; the head stands on the last one in use, what is not yet in use above it."""
    _box(ax, 0, 0, 1, "stem", BODY)
    for stage in range(1, depth + 1):
        _box(ax, 0, stage, 1, f"stage {stage}", BODY)
    _box(ax, 0, depth + 1, 2, f"{head}\n{outputs} outputs", HEAD)
    for stage in range(depth + 1, stages + 1):
        _box(ax, 0, stage + 2, 1, f"stage {stage}", BODY, used=False)


def leads_in_epochs(events: Iterable[Event], course: Course) -> list[float]:
    """By how many epochs the teachers are ahead before each update of the student. Epochs, and not updates, as their
    batches an epoch are not the student's.

    >>> from spacedkd_lib.schedule import graded_schedule
    >>> course = Course(((1, 1), (1, 2)), lessons=4)
    >>> leads_in_epochs(graded_schedule(course, 1.0), course)
    [1.0, 1.0, 0.5]
    """
    taught, leads = 0.0, []
    for kind, index, _ in events:
        if kind == "teach":
            taught = (index + 1) / course.lessons if course.lessons else _epochs(course, index + 1)
        elif kind == "learn":
            leads.append(taught - _epochs(course, index))
    return leads


def _epochs(course: Course, batch: int) -> float:
    """Epochs of the student's data before a batch of its own."""
    done, total = course.progress(batch, restart=False)
    return done / total * course.epochs


def grades(events: Iterable[Event], course: Course) -> Figure:
    """When the teachers and a student that grows are updated, and by how many epochs the teachers are ahead at each
    update of the student. Blocks alternate in colour; black lines: growth.

    Args:
        events: see `schedule.graded_schedule`.
        course: the run's.
    """
    events = list(events)
    updates = [event for event in events if event.kind in ("teach", "learn")]
    times = np.cumsum([0] + [event in ("teach", "learn") for event, *_ in events])[:-1]  # updates before each event
    style()
    fig, (lanes, lead) = plt.subplots(2, 1, figsize=(PAGE, 2.4), layout="constrained", height_ratios=[1, 1])
    _draw_lanes(lanes, updates, np.arange(len(updates)))
    lanes.set_yticks([0.25, 1.25], ["student", "teachers"])
    learned = [time for time, event in enumerate(updates) if event.kind == "learn"]
    ahead = leads_in_epochs(updates, course)
    lead.plot(learned, ahead, "k.", ms=2)
    lead.axhline(np.mean(ahead), color="#555555", lw=1, ls="--")
    lead.set_title(f"mean lead {np.mean(ahead):.2f} epochs", fontsize=8, loc="right", pad=2)
    lead.set(ylabel="lead (epochs)", ylim=(0, 1.15 * max(ahead)),
             xlabel="time, in updates; ticks: epochs, with their replays; black lines: the student grows")
    lead.yaxis.set_major_locator(MaxNLocator(3))
    _draw_epochs(lanes, lead, [(time, e.index) for time, e in zip(times, events) if e.kind == "epoch"])
    for time in (time for time, event in zip(times, events) if event.kind == "grow"):
        lanes.axvline(time, color="black", lw=1.2)
        lead.axvline(time, color="black", lw=1.2)
    return fig


def group_accuracies(frame: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Test accuracy of each group of classes at the end of each grade from its own on: mean over seeds and 95% t
    interval.

    Args:
        frame: from `tables.by_grade`, a line a run.
        names: arms to draw; those without runs are left out.
    """
    style()
    panels = list(frame[frame["arm"].isin(names)].groupby(["setting", "group"], sort=False))
    columns = max(min(len(panels), 3), 1)
    rows = max(-(-len(panels) // columns), 1)
    fig, axes = plt.subplots(rows, columns, figsize=(PAGE, 1.9 * rows + 0.8), squeeze=False, layout="constrained")
    counts, shown = [], [arm for arm in names if arm in set(frame["arm"])]
    for ax in axes.flat[len(panels):]:
        ax.set_axis_off()
    for ax, ((setting, group), part) in zip(axes.flat, panels):
        ax.set_title(f"{setting}: group {group}")
        for i, arm in enumerate(shown):
            found = {g: mean_interval(v) for g, v in part[part["arm"] == arm].groupby("grade")["accuracy"]}
            at = {g: g + 0.5 * ((i + 0.5) / len(shown) - 0.5) for g in found}
            ax.plot(list(at.values()), [v.mean for v in found.values()], color=look(arm)[0], lw=0.8, alpha=0.6)
            for g, interval in found.items():
                _mark(ax, arm, interval, x=at[g])
                counts.append(interval.n)
        ax.set(xlabel="end of grade", ylabel="accuracy (%)", xlim=(0.5, frame["grade"].max() + 0.5))
        ax.set_ylim(max(ax.get_ylim()[0], 0), min(ax.get_ylim()[1], 100))  # intervals of few seeds go beyond
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(axis="y")
    marks = [plt.Line2D([], [], color=look(arm)[0], marker=look(arm)[1], ls="") for arm in shown]
    fig.legend(marks, shown, loc="outside lower center", ncols=2, title=f"mean over seeds; {_say_n(counts)}")
    return fig
