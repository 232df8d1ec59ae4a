"""Figures of measures show the numbers that they were given."""

import numpy as np
import pandas as pd
import pytest
from test_figures import check_legible, said
from test_tables import tidy

from spacedkd_lib.report import measure_figures
from spacedkd_lib.statistics import mean_interval

FRAME = pd.concat([tidy({"baseline": [1, 2, 3], "online KD": [2, 3, 5]}), tidy({"baseline": [1, 4]}, setting="digits")])
STEPS = np.linspace(-1, 1, 5)


def curves(frame):
    return {run: {"steps": STEPS, "loss": np.outer(STEPS ** 2, [1.0, 3.0]) + k}
            for k, run in enumerate(frame["run_id"])}


def test_planes_share_one_scale_and_are_cut():
    loss = np.add.outer(STEPS ** 2, 9 * STEPS ** 2)
    fig = measure_figures.planes({"one": {"steps": STEPS, "loss": loss}, "two": {"steps": STEPS, "loss": 0.1 * loss}})
    surfaces = [ax for ax in fig.axes if hasattr(ax, "get_zlim")]
    assert [ax.get_zlim() for ax in surfaces] == [(0, 4)] * 2 and "cut at 4" in said(fig)


def test_quotients_are_paired_and_cut():
    frame = pd.concat([tidy({"baseline": [1, 2, 4], "SAM": [2, 4, 9], "online KD": [1, 2, 400]}),
                       tidy({"baseline": [1, 4], "SAM": [0.5, 2]}, setting="digits")]).rename(columns={"test_accuracy": "trace"})
    fig = measure_figures.quotients(frame, ("SAM", "online KD", "offline KD"), {"trace": "Trace"})
    glyphs, digits = fig.axes
    logs = np.log([2, 2, 2.25])
    marks = glyphs.containers
    assert marks[0][0].get_xdata() == pytest.approx(np.exp(logs.mean())) and len(marks) == 2
    low, high = marks[0][2][0].get_segments()[0][:, 0]
    assert (low, high) == pytest.approx(tuple(np.exp(mean_interval(logs)[1:3])))
    other = measure_figures.quotients(frame, ("SAM",), {"trace": "Trace"}, {"SAM": "online KD"}).axes[0]
    assert other.containers[0][0].get_xdata() == pytest.approx(np.exp(np.log([2, 2, 9 / 400]).mean()))
    assert digits.containers[0][0].get_xdata() == pytest.approx(0.5) and glyphs.get_xlim() == (0.25, 4)
    check_legible(fig)


def test_idle_drift_shows_its_parts_the_limit_and_the_prediction():
    counts = [0, 1, 10, 585]
    moved = pd.concat([pd.DataFrame({"part": part, "idle": counts, "distance": np.sqrt(counts) * k,
                                     "test_accuracy": [50.0, 40.0, 30.0 + k, 20.0]})
                       for k, part in enumerate(("all", "momentum", "decay"), start=1)])
    resumed = pd.DataFrame({"update": range(1, 31), "length": np.tile([1.0, 2.0, 3.0], 10), "predicted": 1.5})
    fig = measure_figures.idle_drift(moved, resumed, 9.0487)
    far, long, known = ([line.get_ydata() for line in ax.lines] for ax in fig.axes)
    assert [list(y) for y in far[:3]] == [list(np.sqrt(counts) * k) for k in (1, 2, 3)] and set(far[3]) == {9.0487}
    assert [y[2] for y in known] == [31, 32, 33]
    assert list(long[0]) == list(resumed["length"]) and set(long[1][1:-1]) == {2.0} and set(long[2]) == {1.5}
    assert "closed form: 9.05" in said(fig)
    check_legible(fig)
