"""Figures: what they draw, that nothing is cut off or too small, that the same data give the same bytes."""

import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from test_tables import accuracies, synthetic, tidy

from spacedkd_lib import schedule
from spacedkd_lib.errors import InputError
from spacedkd_lib.lab import arms, claims, grids, profiles
from spacedkd_lib.lab.lead_lag import LAG_OWN, LAG_OWN_MOVING, LAGS
from spacedkd_lib.report import diagrams, figures, style, tables
from spacedkd_lib.schedule import spaced_schedule
from spacedkd_lib.statistics import mean_interval, paired_interval

pytestmark = pytest.mark.filterwarnings("error")  # matplotlib warns of a layout that does not fit
NAMES = ["baseline", "online KD", *(f"spaced KD s={s}" for s in ("0.5", "1", "1.5", "2")), "offline KD"]


def made_up(names, **of):
    """Four seeds of each arm, in two settings."""
    draw = np.random.default_rng(0).normal
    return pd.concat([tidy({arm: list(draw(60 + k, 2, 4)) for k, arm in enumerate(names)}, setting=setting, **of)
                      for setting in ("glyphs", "digits")], ignore_index=True)


RUNS = made_up(NAMES)
SELF_RUNS = made_up(["baseline", "exits, labels only", "self KD", "spaced self KD s=2", "spaced self KD s=4"],
                    notebook="04_self_kd")


@pytest.fixture(autouse=True)
def no_figure_left_open():
    yield
    plt.close("all")


def texts(fig):
    return [text for text in fig.findobj(plt.Text) if text.get_visible() and text.get_text().strip()]


def said(fig):
    return "\n".join(text.get_text() for text in texts(fig))


def tick_labels(axis):
    low, high = sorted(axis.get_view_interval())
    return [label for label, place in zip(axis.get_ticklabels(), axis.get_ticklocs()) if low <= place <= high]


def check_legible(fig):
    """At its own size, half a page's width or a page's: nothing below 8 points, nothing cut off, and no label
    of a tick on another."""
    assert fig.get_figwidth() in (figures.COLUMN, figures.PAGE)
    fig.canvas.draw()
    axes = [axis for ax in fig.axes if ax.axison for axis in (ax.xaxis, ax.yaxis)]
    drawn = {label for axis in axes for label in tick_labels(axis)}
    for text in set(texts(fig)) - ({label for axis in axes for label in axis.get_ticklabels()} - drawn):
        box = text.get_window_extent()
        assert text.get_size() >= 8, text
        assert box.x0 >= -1 and box.x1 <= fig.bbox.x1 + 1 and box.y0 >= -1 and box.y1 <= fig.bbox.y1 + 1, (
            f"{text} is cut off")
    for axis in axes:
        boxes = [label.get_window_extent() for label in tick_labels(axis) if label.get_text()]
        assert not any(a.overlaps(b) for a, b in zip(boxes, boxes[1:])), f"labels overlap on {axis}"


def intervals(ax, along=1):
    """(low, high) of every interval that seaborn draws, along x (0) or y (1)."""
    spans = [np.asarray(line.get_data()[along], float) for line in ax.lines if not marked(line)]
    spans = [span[np.isfinite(span)] for span in spans]
    return [(span.min(), span.max()) for span in spans if len(span) > 2]  # with caps


def marked(line):
    return line.get_marker() in tuple(style.MARKERS)


def means(ax, along=1):
    """Of every arm's marker, in the order drawn."""
    return [float(value) for line in ax.lines if marked(line) for value in line.get_data()[along] if value == value]


# One style for an arm

def test_every_arm_of_every_grid_has_a_style_and_a_colour_means_one_thing():
    """But for the audited switches and the arms of the lead-lag law, which are drawn by family."""
    rows = [row for profile in profiles.PROFILES for row in grids.grid(profile, None, 1)]
    switches = {row.arm for row in rows if row.notebook == "09_released_code_audit"}
    lags = {*LAGS, LAG_OWN, LAG_OWN_MOVING}
    named = {row.arm for row in rows if row.family not in lags} - switches
    assert named | lags <= style.ARM_STYLES.keys()
    colours = [style.colour(name) for name in named | lags | {"teacher", "student"}]
    others = {*style.LINES, *style.COLOURS.values(), *diagrams.SHADES[1:], *style.OTHERS}
    assert len(set(colours)) == len(colours) and not others & set(colours)
    assert style.style_of("clean") == style.style_of("spaced KD s=1.5")
    assert style.style_of("clean, s=0") == style.style_of("online KD")


@pytest.mark.parametrize("profile", profiles.PROFILES)
def test_every_arm_of_one_figure_has_its_own_style(profile):
    for notebook in arms.ARMS:
        names = {row.family if row.family in LAGS else row.arm for row in grids.grid(profile, notebook, 1)}
        assert len(set(style.styles_of(names).values())) == len(names)


def test_no_notebook_gives_an_arms_colour_to_something_else():
    """Notebooks name colours of their own only if no arm has them; those of arms come from `figures.colour`."""
    arms = {shade.lower() for shade, _ in style.ARM_STYLES.values()}
    for path in sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb")):
        cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
        named = re.findall(r"[\"'](#[0-9A-Fa-f]{6})[\"']", "".join("".join(cell["source"]) for cell in cells))
        assert not arms & {shade.lower() for shade in named}, path.name


@pytest.mark.parametrize("name", ["spaced KD s={:g}", "spaced self KD s={:g}"])
def test_spaced_arms_darken_with_the_interval(name):
    light = [sum(to_rgb(figures.colour(name.format(s)))) for s in (0.5, 1, 1.5, 2, 3, 4)]
    assert light == sorted(light, reverse=True) and len(set(light)) == 6


# Schedules

@pytest.mark.parametrize("s", [0, 0.5, 1.5, 3])
def test_schedule_shows_every_update_and_the_lead(s):
    events = list(spaced_schedule(3, 8, s))
    fig = figures.schedules([("", iter(events))], 8)
    lanes, lead = fig.axes
    drawn = [path.get_extents() for collection in lanes.collections for path in collection.get_paths()]
    drawn = [box for box in drawn if box.width == 1]
    wanted = [(event.kind, time) for time, event in enumerate(e for e in events if e.kind != "epoch")]
    shades = {to_rgb(shade) for collection in lanes.collections for shade in collection.get_facecolor()}
    assert shades == {to_rgb(style.colour(role)) for role in ("teacher", "student")}  # a role, and not a block
    for kind, y in (("teach", 1.0), ("learn", 0.0)):
        assert sorted(box.x0 for box in drawn if box.y0 == y) == [time for k, time in wanted if k == kind]
    line, at_learning, _ = lead.lines[:3]
    assert list(at_learning.get_ydata()) == schedule.leads(events)
    assert list(at_learning.get_xdata()) == [time for kind, time in wanted if kind == "learn"]
    mean = np.mean(schedule.leads(events))
    assert f"{mean:.1f} updates" in said(fig) and f"{mean / 8:.2f} epochs" in said(fig)
    check_legible(fig)


def test_a_teacher_that_is_behind_has_a_lead_below_zero():
    frozen, moving = (list(spaced_schedule(3, 8, -1, rule=rule)) for rule in ("fixed", "constant"))
    fig = figures.schedules([("frozen", frozen), ("moving", moving)], 8)
    assert [list(ax.lines[1].get_ydata()) for ax in fig.axes[1::2]] == [schedule.leads(frozen), schedule.leads(moving)]
    assert [ax.get_ylim()[0] < min(ax.lines[0].get_ydata()) for ax in fig.axes[1::2]] == [True, True]
    bands = [patch.get_xy()[:4] for patch in fig.axes[2].patches]  # of one batch each
    assert len(bands) == 24 and all(late - early == 1 for (early, _), (late, _), *_ in bands)
    check_legible(fig)


def test_a_band_joins_each_block_to_its_replay():
    fig = figures.schedules([("", spaced_schedule(3, 8, 1))], 8)
    bands = [patch.get_xy()[:4] for patch in fig.axes[0].patches]
    assert [[x for x, _ in band] for band in bands] == [[t, t + 8, t + 16, t + 8] for t in (0, 16, 32)]


def test_schedules_of_other_kinds_and_long_ones_are_legible():
    alone = [event for event in spaced_schedule(3, 8, 0) if event.kind != "teach"]
    released = spaced_schedule(3, 8, 1, teach_last=False, counter="epoch_early", tail="drop")
    check_legible(figures.schedules([("labels alone", alone), ("released self KD", released),
                                     ("moving", spaced_schedule(3, 8, 0.5, rule="constant")), ("none", [])], 8))
    check_legible(figures.schedules([("", spaced_schedule(80, 50, 1.5))], 50))


# Arms and differences

def test_arms_shows_every_seed_and_the_interval():
    fig = figures.arms(RUNS, "Spaced distillation")
    glyphs = fig.axes[0]
    values = [accuracies(RUNS, arm) for arm in NAMES]
    assert [label.get_text() for label in glyphs.get_yticklabels()] == NAMES
    dots = [sorted(collection.get_offsets()[:, 0]) for collection in glyphs.collections]
    assert dots == [pytest.approx(sorted(v)) for v in values]
    assert means(glyphs, 0) == pytest.approx([np.mean(v) for v in values])
    assert intervals(glyphs, 0) == [pytest.approx(mean_interval(v)[1:3]) for v in values]
    markers = [line.get_marker() for line in glyphs.lines if marked(line)]
    assert markers == [style.style_of(arm)[1] for arm in NAMES]
    check_legible(fig)


def test_a_panel_has_the_arms_and_the_n_of_its_own_setting():
    few = RUNS[(RUNS["setting"] == "glyphs") | ((RUNS["arm"] != "spaced KD s=1") & (RUNS["seed"] < 3))]
    fig = figures.arms(few)
    glyphs, digits = ([label.get_text() for label in ax.get_yticklabels()] for ax in fig.axes)
    assert [arm for arm in glyphs if arm != "spaced KD s=1"] == digits != glyphs
    assert [ax.get_title("left") for ax in fig.axes] == ["glyphs (n = 4)", "digits (n = 3)"]


def test_differences_are_paired():
    frame = RUNS[~((RUNS["arm"] == "offline KD") & (RUNS["seed"] == 1))]
    fig = figures.differences(frame, "online KD")
    names = [arm for arm in NAMES if arm != "online KD"]
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == names
    online = np.array(accuracies(RUNS, "online KD"))
    spans = intervals(fig.axes[0], 0)
    for arm, mean, drawn in zip(names, means(fig.axes[0], 0), spans):
        both = [0, 2, 3] if arm == "offline KD" else range(4)
        i = paired_interval(np.array(accuracies(RUNS, arm))[both], online[both])
        assert (mean, *drawn) == pytest.approx(i[:3])
    assert len(spans) == len(names) and len(fig.axes[0].collections[names.index("offline KD")].get_offsets()) == 3
    assert "n = 3 to 4" in said(fig)
    check_legible(fig)


def test_differences_to_a_control_of_each_family():
    fig = figures.differences(RUNS, {"spaced KD": "online KD", "offline KD": "baseline"})
    names = [label.get_text() for label in fig.axes[0].get_yticklabels()]
    assert names == [arm for arm in NAMES if arm.startswith(("spaced KD", "offline KD"))]
    for arm, mean in zip(names, means(fig.axes[0], 0)):
        other = "baseline" if arm == "offline KD" else "online KD"
        assert mean == pytest.approx(np.mean(np.subtract(accuracies(RUNS, arm), accuracies(RUNS, other))))
    assert "minus that of its control" in said(fig)


@pytest.mark.parametrize("draw", [
    figures.arms, figures.differences,
    lambda frame: figures.learning_curves(frame.assign(epoch=1), list(dict.fromkeys(frame["arm"])))])
class TestEveryFigure:
    def test_one_seed_has_no_interval_and_says_so(self, draw):
        fig = draw(RUNS[RUNS["seed"] == 0])
        assert "n = 1" in said(fig) and not any(getattr(mark, "has_yerr", False) for ax in fig.axes
                                                for mark in ax.containers)
        check_legible(fig)

    @pytest.mark.parametrize("kept", [["baseline"], ["offline KD", "spaced KD s=1"], ["mutual learning"], []])
    def test_missing_arms(self, draw, kept):
        also = (RUNS["setting"] == "digits") & (RUNS["arm"] == "online KD") & bool(kept)
        frame = RUNS[RUNS["arm"].isin(kept) | also]
        fig = draw(frame)
        assert "no records" in said(fig) or kept
        check_legible(fig)

    def test_self_kd_and_many_settings(self, draw):
        check_legible(draw(SELF_RUNS))
        rows = grids.grid("paper", "05_spaced_kd", 2)
        check_legible(draw(tables.runs(rows, synthetic(rows))))


# Chosen comparisons

def table_of(*lines, setting="glyphs"):
    """As from `tables.differences`: (mean, half an interval), ..."""
    columns = ["Setting", "Control", "Difference (points)", "Difference: low", "Difference: high", "Difference: pairs"]
    return pd.DataFrame([[setting, f"control {y}", mean, mean - half, mean + half, 5]
                         for y, (mean, half) in enumerate(lines)], columns=columns)


def test_comparisons_draws_each_line():
    lines = [(2.0, 0.5), (1.0, 0.5), (-1.5, 0.25), (0.0, 1.0)]
    fig = figures.comparisons(pd.concat([table_of(*lines), table_of(lines[1], setting="digits")]), "Control", "All")
    glyphs, digits = fig.axes
    point, _, (spans,) = glyphs.containers[0]
    assert point.get_data()[0].tolist() == [mean for mean, _ in lines] and point.get_ydata().tolist() == [0, 1, 2, 3]
    assert [list(span[:, 0]) for span in spans.get_segments()] == [[mean - half, mean + half] for mean, half in lines]
    assert [label.get_text() for label in glyphs.get_yticklabels()] == [f"control {y}" for y in range(4)]
    assert (glyphs.get_title("left"), digits.get_title("left")) == ("glyphs", "digits") and glyphs.yaxis.get_inverted()
    check_legible(fig)


# The lead-lag law

LAG_ROWS = [row for row in grids.grid("study", "05_spaced_kd", 5) if row.setting == claims.LAG_SETTING]
SHIFTS = {"baseline": 3.0, "teacher +0, eval mode": -20.0, "teacher -4": 2.0, "teacher +1.5, moving": 1.0}


def lag_frame(rows=LAG_ROWS):
    return pd.DataFrame([{"notebook": row.notebook, "setting": row.setting, "arm": row.arm, "seed": row.seed,
                          "family": row.family, "interval": row.recipe.interval,
                          "test_accuracy": 60.0 + row.seed + SHIFTS.get(row.arm, 0.0) * (1 + 0.1 * (row.seed % 5))}
                         for row in rows])


def test_lead_lag_is_paired_with_offset_0_of_the_same_kind():
    fig = figures.lead_lag(lag_frame())
    own, tuned, heavy, by_running, signs, _ = fig.axes
    curves = {ax: [line for line in ax.lines if marked(line)] for ax in (own, tuned, heavy, by_running)}
    assert [len(line.get_xdata()) for line in curves[heavy]] == [7, 3, 3]
    assert [len(line.get_xdata()) for ax in (own, tuned) for line in curves[ax]] == [7, 3, 7]
    frozen, moving, other = (line.get_ydata().tolist() for line in curves[heavy])
    assert curves[heavy][0].get_xdata()[0] == -4 and frozen == pytest.approx([2.4] + [0] * 6)
    assert moving == pytest.approx([0, 0, 1.2])  # paired with what rests at offset 0
    assert curves[by_running][0].get_ydata().tolist() == pytest.approx([24, 0, 24])
    drawn = [tuple(segment[:, 1]) for bars in heavy.collections for segment in bars.get_segments()]
    assert pytest.approx(mean_interval([2.0, 2.2, 2.4, 2.6, 2.8])[1:3]) == drawn[0]
    grey = figures.colour("baseline")
    levels = [line.get_ydata()[0] for ax in curves for line in ax.lines if line.get_color() == grey]
    assert levels == pytest.approx([3.6, 3.6, 27.6])  # none in the first: labels alone have other values there
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in curves[heavy]}
    assert len(looks) == 3


def test_lead_lag_shows_what_each_theory_said_beforehand():
    strip = figures.lead_lag(lag_frame()).axes[-2]
    placed = sorted((round(text.get_position()[1]), text.get_position()[0], text.get_text()) for text in strip.texts)
    columns = {words[0]: [{"−": -1, "+": 1}[word] for word in words[1:]] for words in
               ([word for _, x, word in placed if x == at] for at in sorted({x for _, x, _ in placed})[1:])}
    ahead, behind = (next(of for of in claims.PREDICTIONS if of[:2] == (arm, "teacher +0"))
                     for arm in ("teacher +1.5", "teacher -1.5"))
    assert columns == {"behind": list(behind[2:]), "ahead": list(ahead[2:])}


def test_lead_lag_draws_the_curve_of_a_model():
    fig = figures.lead_lag(lag_frame(), ([-4, 0, 4], [0.6, 0.7, 0.9]))
    model = fig.axes[-2]
    assert list(model.lines[0].get_ydata()) == [0.6, 0.7, 0.9] and model.yaxis.get_inverted()
    check_legible(fig)


@pytest.mark.parametrize("panels, kept", [
    (4, lambda frame: frame.seed == 200), (0, lambda frame: frame.arm.isin(["baseline"])),
    (4, lambda frame: frame.arm != "teacher +0"), (0, lambda frame: frame.seed < 0)])
def test_lead_lag_of_what_there_is(panels, kept):
    frame = lag_frame()
    fig = figures.lead_lag(frame[kept(frame)])
    check_legible(fig)
    assert sum(ax.axison for ax in fig.axes) == panels + 1


# Curves


def test_learning_curves_skip_what_was_not_evaluated():
    frame = pd.concat([RUNS.assign(epoch=epoch, student_loss=0.5, test_accuracy=RUNS["test_accuracy"] + epoch)
                       for epoch in (1, 2, 3)])
    frame.loc[frame["epoch"] == 2, "test_accuracy"] = np.nan
    fig = figures.learning_curves(frame, ["online KD", "never run"])
    line, = fig.axes[0].lines
    values = accuracies(RUNS, "online KD")
    assert list(line.get_xdata()) == [1, 3]
    assert list(line.get_ydata()) == pytest.approx([np.mean(values) + 1, np.mean(values) + 3])
    band = fig.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    i = mean_interval(values)
    assert (band.min(), band.max()) == pytest.approx((i.low + 1, i.high + 3))
    check_legible(fig)


# Pictures and files

@pytest.mark.parametrize("channels", [1, 3])
def test_sheet_shows_the_very_pixels(channels):
    images = np.random.default_rng(0).integers(0, 256, (5, channels, 12, 10), dtype=np.uint8)
    shown = figures.sheet(images, columns=3).axes[0].images[0].get_array()
    shown = shown.reshape(*shown.shape[:2], channels)
    assert shown.shape == (2 * 13, 3 * 11, channels)
    for k, image in enumerate(images):
        y, x = 1 + k // 3 * 13, k % 3 * 11
        assert np.array_equal(shown[y:y + 12, x:x + 10], image.transpose(1, 2, 0))


def test_sheet_titles_stay_apart():
    images = np.zeros((16, 3, 32, 32), np.uint8)
    fig = figures.sheet(images, 16, 8 * ["aquarium_fish", "A"])
    fig.canvas.draw()
    boxes = [text.get_window_extent() for text in fig.axes[0].texts]
    assert not any(a.overlaps(b) for a, b in zip(boxes, boxes[1:]))


def test_long_names_of_arms_and_settings_are_not_cut_off():
    rows = grids.grid("study", "12_vision_transformers", 1)
    frame = pd.DataFrame([{"setting": row.setting, "arm": row.arm, "seed": seed, "test_accuracy": 20.0 + seed}
                          for row in rows for seed in (0, 1)])
    check_legible(figures.arms(frame, "Transformers"))


@pytest.mark.parametrize("draw", [
    lambda: figures.arms(RUNS, "Spaced distillation"), lambda: figures.schedules([("", spaced_schedule(3, 8, 1))], 8),
    lambda: figures.sheet(np.zeros((4, 1, 8, 8), np.uint8), 2, list("abcd"))])
def test_the_same_data_give_the_same_bytes(draw, tmp_path):
    path = tmp_path / "deep" / "05-arms.png"
    fig = draw()
    figures.save(fig, path, ["b", "a", "b"])
    first = path.read_bytes()
    assert list(path.parent.iterdir()) == [path]
    figures.save(fig, path, ["a", "b"])
    assert path.read_bytes() == first
    plt.rcParams.update({"font.size": 20, "axes.facecolor": "black"})  # a reader's own style changes nothing
    figures.save(draw(), path, ["a", "b"])
    assert path.read_bytes() == first


def test_a_saved_figure_names_its_records(tmp_path):
    figures.save(figures.arms(RUNS), tmp_path / "by-interval.png", RUNS["run_id"])
    with Image.open(tmp_path / "by-interval.png") as image:
        assert image.width == round(200 * figures.COLUMN) and "Software" not in image.info
        assert json.loads(image.info["Description"]) == {"figure": "by-interval", "runs": sorted(RUNS["run_id"])}


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "figures").write_text("a file, not a folder")
    with pytest.raises(InputError):
        figures.save(figures.arms(RUNS), tmp_path / "figures" / "x.png", [])
