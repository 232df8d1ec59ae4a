"""Schedules -> figures: when teacher and student are updated, and how far the teacher is ahead.

Time runs in updates. A role has its colour, and blocks alternate in its shade. A band joins each block of the teacher
to its replay. No torch here.
"""

from __future__ import annotations

import math
from typing import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..schedule import Course, Event, leads
from .style import COLUMN, PAGE, apply_style, colour

SHADES = 1.0, 0.5  # how opaque the blocks of even and of odd number are
MANY = 150  # events from which on single updates are not told apart


def schedules(titled: Sequence[tuple[str, Iterable[Event]]], batches_per_epoch: int,
              roles: tuple[str, str] = ("teacher", "student")) -> Figure:
    """Draw each schedule's updates, and by how many the teacher is ahead: a line, and a dot at the student's updates.

    Args:
        titled: title and events, see `schedule.spaced_schedule`.
        batches_per_epoch: L, for the mean lead in epochs.
    """
    apply_style()
    fig, axes = plt.subplots(2 * len(titled), 1, figsize=(COLUMN, 1.55 * len(titled) + 0.35), squeeze=False,
                             layout="constrained", gridspec_kw={"height_ratios": [1, 0.9] * len(titled)})
    for (title, events), lanes, lead in zip(titled, axes[::2, 0], axes[1::2, 0]):
        events = list(events)
        times = _times(events)
        lanes.set_title(title)
        _draw_lanes(lanes, events, times, roles)
        step = np.array([(event.kind == "teach") - (event.kind == "learn") for event in events])
        if (step > 0).any():
            lead.plot(times, np.cumsum(step) - step, color="black", lw=0.8)
        ahead = leads(events) if (step > 0).any() else []
        _draw_lead(lead, events, times, ahead, "{0:.1f} updates = {1:.2f} epochs", batches_per_epoch)
        lead.set_ylabel("lead" if ahead else "")
        lead.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        _draw_epochs((lanes, lead), events, times)
    axes[-1, 0].set_xlabel("time, in updates; ticks: epochs, with their replays")
    return fig


def grades(events: Iterable[Event], course: Course) -> Figure:
    """Draw when the teachers and a student that grows are updated; black lines: growth.

    Below: by how many epochs the teachers are ahead at each update of the student.
    """
    events = list(events)
    times = _times(events)
    apply_style()
    fig, (lanes, lead) = plt.subplots(2, 1, figsize=(PAGE, 2.4), layout="constrained")
    _draw_lanes(lanes, events, times, ("teachers", "student"))
    _draw_lead(lead, events, times, leads_in_epochs(events, course), "{0:.2f} epochs", of_many=1)
    lead.set(ylabel="lead (epochs)",
             xlabel="time, in updates; ticks: epochs, with their replays; black lines: the student grows")
    lead.yaxis.set_major_locator(MaxNLocator(3))
    _draw_epochs((lanes, lead), events, times)
    for time, event in zip(times, events):
        if event.kind == "grow":
            for ax in (lanes, lead):
                ax.axvline(time, color="black", lw=1.2)
    return fig


def leads_in_epochs(events: Iterable[Event], course: Course) -> list[float]:
    """Return by how many epochs the teachers are ahead before each update of the student.

    Epochs, and not updates, as their batches an epoch are not the student's.

    >>> from spacedkd_lib.schedule import graded_schedule
    >>> course = Course(((1, 1), (1, 2)), lessons=4)
    >>> leads_in_epochs(graded_schedule(course, 1.0), course)
    [1.0, 1.0, 0.5]
    """
    taught, ahead = 0.0, []
    for kind, index, _ in events:
        if kind == "teach":
            taught = (index + 1) / course.lessons
        elif kind == "learn":
            done, total = course.progress(index, restart=False)
            ahead.append(taught - done / total * course.epochs)
    return ahead


def _is_update(event: Event) -> bool:
    return event.kind not in ("epoch", "grow")


def _times(events: list[Event]) -> np.ndarray:
    """Count the updates before each event."""
    return np.cumsum([0] + [_is_update(event) for event in events])[:-1]


def _draw_lanes(ax: plt.Axes, events: list[Event], times: np.ndarray, roles: tuple[str, str]) -> None:
    spans: dict[tuple, list[int]] = {}  # (block, height of the lane) -> times of its updates
    for time, event in zip(times, events):
        if _is_update(event):
            spans.setdefault((event.block, float(event.kind != "learn")), []).append(time)
    for (block, y), span in spans.items():
        shade, taught = colour("teacher" if y else "student"), spans.get((block, 1.0))
        ax.broken_barh([(time, 1) for time in span], (y, 0.5), facecolor=(shade, SHADES[block % 2]), edgecolor="white",
                       lw=0.6 if len(events) < MANY else 0)
        if y == 0 and taught:
            corners = [(taught[0], 1), (taught[-1] + 1, 1), (span[-1] + 1, 0.5), (span[0], 0.5)]
            ax.add_patch(plt.Polygon(corners, facecolor="black", alpha=0.1, lw=0))
    lanes = dict(zip((1.0, 0.0), roles))
    used = sorted({y for _, y in spans})
    ax.set(ylim=(-0.1, 1.6), yticks=[y + 0.25 for y in used], yticklabels=[lanes[y] for y in used])
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)


def _draw_lead(ax: plt.Axes, events: list[Event], times: np.ndarray, ahead: list[float], words: str,
               batches_per_epoch: int = 1, of_many: float = 0) -> None:
    """Draw a dot for the lead at each update of the student, and their mean, told in words.

    of_many: a dot's size among many events; 0 where a line tells the lead.
    """
    if not ahead:
        ax.text(0.5, 0.5, "no updates of a teacher alone", transform=ax.transAxes, ha="center", va="center")
        ax.set_yticks([])
        return
    learned = [time for time, event in zip(times, events) if event.kind == "learn"]
    ax.plot(learned, ahead, "k.", ms=3 if len(events) < MANY else of_many)
    mean = sum(ahead) / len(ahead)
    ax.axhline(mean, color="#555555", lw=1, ls="--")
    ax.set_title("mean lead " + words.format(mean, mean / batches_per_epoch), fontsize=8, loc="right", pad=2)
    ax.set_ylim(1.15 * min([0, *ahead]), 1.15 * max([0, *ahead]) or 1)


def _draw_epochs(axes: tuple[plt.Axes, plt.Axes], events: list[Event], times: np.ndarray) -> None:
    """Draw a dotted line and a tick where an epoch ends, after a replay that falls there, at most six of them."""
    ends = [(time, event.index) for time, event in zip(times, events) if event.kind == "epoch"]
    shown = ends[::-1][::math.ceil(len(ends) / 6) or 1]
    for ax in axes:
        ax.set_xlim(0, ends[-1][0] if ends else None)
        for time, _ in shown:
            ax.axvline(time, color="#7f7f7f", lw=0.6, ls=":")
    axes[0].set_xticks([])
    axes[1].set_xticks([time for time, _ in shown], [str(number) for _, number in shown])
