"""Figures of measures show the numbers that they were given."""

import numpy as np
import pandas as pd
import pytest
from test_figures import check_legible, said
from test_tables import tidy

from spacedkd_lib.report import measure_figures
from spacedkd_lib.statistics import correlation, mean_interval

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
    assert measure_figures.planes({}).axes == []


def test_lines_are_means_over_seeds_with_their_bands():
    fig = measure_figures.lines(FRAME, curves(FRAME), "steps", "loss", ("t", "loss (nats)"))
    glyphs, digits = fig.axes
    line = next(line for line in glyphs.lines if len(line.get_xdata()) == 5)
    assert line.get_ydata().tolist() == pytest.approx((2 * STEPS ** 2 + 1).tolist())  # runs 0, 1, 2; draws 1 and 3
    band = glyphs.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(mean_interval([2.0, 3.0, 4.0]).high)
    assert glyphs.get_title("left") == "glyphs (n = 3)" and digits.get_title("left") == "digits (n = 2)"
    check_legible(fig)


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
    assert digits.containers[0][0].get_xdata() == pytest.approx(0.5) and glyphs.get_xlim() == (0.25, 4)
    check_legible(fig)


def test_scatter_tells_the_correlation_of_all_runs():
    frame = FRAME.assign(trace=np.arange(1.0, len(FRAME) + 1))
    fig = measure_figures.scatter(frame, "trace", "trace")
    part = frame[frame["setting"] == "glyphs"]
    r = correlation(np.log(part["trace"]), part["test_accuracy"])
    assert f"r = {r:.2f}, 6 runs" in said(fig)
    points, = (found for found in fig.axes[0].collections if len(found.get_offsets()))
    assert len(points.get_offsets()) == 6 and len(fig.axes[0].lines) == 1  # and the regression
    check_legible(fig)


def test_trajectories_have_a_line_for_each_role():
    way = {"role": np.array(["teacher", "student"] * 2), "epoch": np.array([1, 1, 2, 2.0]), "trace": np.arange(1, 5.0)}
    fig = measure_figures.trajectories({"online KD": way}, {"trace": "trace"})
    assert [line.get_ydata().tolist() for line in fig.axes[0].lines] == [[2, 4], [1, 3]]
    bars = measure_figures.trajectories({"online KD": way | {"trace_se": np.full(4, 0.5)}}, {"trace": "trace"}).axes[0]
    ends = [segment[:, 1].tolist() for mark in bars.containers for segment in mark[2][0].get_segments()]
    assert ends == [[1, 3], [3, 5], [0, 2], [2, 4]]  # two standard errors either way
    assert "online KD, teacher" in said(fig)
    check_legible(measure_figures.trajectories({"online KD": way, "spaced KD s=1.5": way}, {"trace": "trace"}))


def test_bars_are_means_over_seeds():
    frame = pd.concat([FRAME.assign(name=name, accuracy=FRAME["test_accuracy"] * k)
                       for k, name in ((1, "clean"), (2, "blur"))])
    fig = measure_figures.bars(frame, "name", "accuracy", "accuracy (%)")
    heights = [bar.get_height() for bar in fig.axes[0].patches]
    assert heights == pytest.approx([2, 4, 10 / 3, 20 / 3]) and "clean" in said(fig)
    check_legible(fig)


def test_spectra():
    fig = measure_figures.spectra({"baseline": {"eigenvalues": STEPS, "density": np.exp(-STEPS ** 2)}})
    assert fig.axes[0].lines[0].get_ydata().tolist() == np.exp(-STEPS ** 2).tolist()
    check_legible(fig)


def test_many_bars_have_upright_names():
    frame = pd.concat([FRAME.assign(name=f"gaussian_noise{k}", accuracy=FRAME["test_accuracy"]) for k in range(8)])
    fig = measure_figures.bars(frame, "name", "accuracy", "accuracy (%)")
    assert {label.get_rotation() for label in fig.axes[0].get_xticklabels()} == {90.0}
    assert "gaussian noise7" in said(fig)
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
