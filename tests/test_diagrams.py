"""Diagrams: what they draw and say, that nothing overlaps or is cut off, that the lead is counted in epochs."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from test_figures import check_legible, said, texts

from spacedkd_lib.recipes import Recipe, ema
from spacedkd_lib.report import diagrams, style
from spacedkd_lib.report.figures import alt_text
from spacedkd_lib.report.schedule_figures import leads_in_epochs
from spacedkd_lib.schedule import Course, graded_schedule

pytestmark = pytest.mark.filterwarnings("error")
THREE = dict(depths=[1, 2, 3], outputs=[10, 36, 62], schools=[10, 26, 26])
FOUR = [(8, 8, 8), (16, 4, 4), (32, 2, 2), (64, 1, 1)]
LETTER = np.arange(256.0).reshape(16, 16)
COURSE = Course(((1, 2), (2, 4)), lessons=6)


@pytest.fixture(autouse=True)
def no_figure_left_open():
    yield
    plt.close("all")


def in_use(ax):
    """Texts of the boxes with a solid edge, from below."""
    solid = [box for box in ax.patches if isinstance(box, Rectangle) and box.get_linestyle() == "-"]
    texts = {text.get_position()[1]: text.get_text() for text in ax.texts if text.get_position()[0] < 1}
    found = [y for y in texts if any(b.get_x() == 0 and b.get_y() < y < b.get_y() + b.get_height() for b in solid)]
    return [texts[y] for y in sorted(found)], sum(box.get_x() > 1 for box in solid)


def test_a_student_grows_by_a_stage_and_a_teacher_a_grade():
    axes = diagrams.growing_student(**THREE).axes
    assert [in_use(ax) for ax in axes] == [
        (["stem", "stage 1", "reference head\n10 outputs"], 1),
        (["stem", "stage 1", "stage 2", "reference head\n36 outputs"], 2),
        (["stem", "stage 1", "stage 2", "stage 3", "head\n62 outputs"], 3)]
    assert [ax.get_title("left") for ax in axes] == [f"grade {g}: {n} classes" for g, n in ((1, 10), (2, 36), (3, 62))]


def test_a_multi_exit_network_has_an_exit_a_stage_and_the_deepest_teaches():
    fig = diagrams.multi_exit(FOUR)
    ax, = fig.axes
    assert "stage 1 8 × 8 × 8, exit 1, gate" in alt_text(fig)  # a drawing's words are its text for screen readers
    words = [text.get_text() for text in ax.texts]
    assert [word for word in words if word.startswith("stage")] == [
        "stage 1\n8 × 8 × 8", "stage 2\n16 × 4 × 4", "stage 3\n32 × 2 × 2", "stage 4\n64 × 1 × 1"]
    assert [word for word in words if "exit" in word][:4] == ["exit 1", "exit 2", "exit 3", "deepest exit"]
    heads = [text.arrow_patch.get_edgecolor() for text in ax.texts if getattr(text, "arrow_patch", None)]
    assert sum(to_hex(shade) == style.colour("teacher").lower() for shade in heads) == 3  # into exits 1 to 3


@pytest.mark.parametrize("draw", [
    lambda: diagrams.multi_exit(FOUR),
    lambda: diagrams.growing_student(**THREE),
    lambda: diagrams.grades(graded_schedule(COURSE, 1.5), COURSE),
    lambda: diagrams.patches(LETTER, 8, np.full((5, 5), 0.2)),
    lambda: diagrams.patches(np.eye(32), 4, np.full((65, 65), 1 / 65)),
    lambda: diagrams.averages(Recipe(), 0.1, 391, (0.5, 1.0, 2.0))])
def test_they_are_legible(draw):
    check_legible(draw())


def test_boxes_do_not_overlap():
    for ax in diagrams.growing_student(**THREE).axes:
        boxes = [box.get_bbox() for box in ax.patches]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_the_lead_is_counted_in_epochs():
    lead = leads_in_epochs(graded_schedule(COURSE, 1.0), COURSE)
    assert lead == pytest.approx([1, 0.5, *[1, 0.75, 0.5, 0.25] * 2])


def test_the_schedule_shows_growth_epochs_and_both_lanes():
    fig = diagrams.grades(graded_schedule(COURSE, 0.0), COURSE)
    lanes, lead = fig.axes
    black = [line for line in lanes.lines if line.get_color() == "black"]
    assert [line.get_xdata()[0] for line in black] == [8]  # after six lessons and two batches of the student
    assert [label.get_text() for label in lanes.get_yticklabels()] == ["student", "teachers"]
    assert {label.get_text(): at for label, at in zip(lead.get_xticklabels(), lead.get_xticks())} == {
        "1": 8, "2": 18, "3": 28}
    at, ahead = lead.lines[0].get_data()
    assert len(at) == 10 and max(at) == 27 and "mean lead 0.27 epochs" in said(fig)  # (2/2 + 4 (1/6 + 1/4)) / 10
    assert ahead[0] == pytest.approx(0.5)
    long = COURSE._replace(grades=((10, 2), (20, 4)))  # so many events that a schedule's dots give way to a line
    assert diagrams.grades(graded_schedule(long, 1.5), long).axes[1].lines[0].get_markersize() > 0


@pytest.fixture
def drawn():
    yield diagrams.split_student((64, 8, 8), (256, 8, 8), (128, 8, 8), (3, 32, 32))
    plt.close("all")


def test_a_split_student_says_its_shapes_and_losses(drawn):
    words = said(drawn)
    assert words.count("32 × 8 × 8") == 2 and words.count("128 × 8 × 8") == 3
    assert "256 × 8 × 8" in words and "3 × 32 × 32" in words
    assert all(name in words for name in ("inheritance", "exploration", "reconstruction", "cross-entropy"))


def test_nothing_overlaps_and_every_text_is_in_its_box_or_in_none(drawn):
    check_legible(drawn)
    boxes = [patch.get_window_extent() for patch in drawn.axes[0].patches]
    words = [text.get_window_extent() for text in texts(drawn)]
    assert not any(a.overlaps(b) for a, b in combinations(words, 2))
    for word in words:
        touched = [box for box in boxes if box.overlaps(word)]
        assert all(box.x0 < word.x0 and word.x1 < box.x1 and box.y0 < word.y0 and word.y1 < box.y1 for box in touched)
        assert len(touched) <= 1
    for line in drawn.axes[0].lines:  # of arrows with corners
        points = drawn.axes[0].transData.transform(line.get_xydata())
        for (x0, y0), (x1, y1) in zip(points, points[1:]):
            assert not any(word.x0 < max(x0, x1) and min(x0, x1) < word.x1 and word.y0 < max(y0, y1)
                           and min(y0, y1) < word.y1 for word in words)


def test_patches_are_parts_of_the_letter_in_reading_order():
    shares = np.random.default_rng(0).dirichlet(np.ones(5), 5)
    whole, cut, seen = diagrams.patches(LETTER, 8, shares).axes
    drawn = [(picture.get_extent()[:1] + picture.get_extent()[3:], picture.get_array()) for picture in cut.images]
    for number, (row, column) in enumerate(((0, 0), (0, 8), (8, 0), (8, 8)), start=1):
        (left, top), part = drawn[number - 1]
        assert (part == LETTER[row:row + 8, column:column + 8]).all()
        label = next(text for text in cut.texts if text.get_text() == str(number))
        assert left < label.get_position()[0] < left + 1 and label.get_position()[1] < top
    assert [float(text.get_text()) for text in seen.texts] == pytest.approx(shares.ravel().tolist(), abs=0.005)
    assert [label.get_text() for label in seen.get_yticklabels()] == ["class", "1", "2", "3", "4"]


def test_averages_of_equal_horizon_are_equally_old():
    weights, left = diagrams.averages(ema(Recipe(epochs=10), ema_decay=0.9), 0.1, 100, (1.0,)).axes
    sparse, dense, equal = (line.get_ydata() for line in weights.lines)
    assert (len(sparse), len(dense), len(equal)) == (100, 1000, 1000)
    assert sparse == pytest.approx(equal[9::10]) and dense[0] == pytest.approx(10) and dense[-1] == pytest.approx(100)
    assert left.lines[1].get_ydata()[-1] == pytest.approx(100 * 0.9**10) and len(left.lines) == 2
