"""Drawings: that they say the shapes they are given, that nothing overlaps or is cut off, that bad shapes are refused."""

from itertools import combinations

import matplotlib.pyplot as plt
import pytest
from test_figures import check_legible, said, texts

from spacedkd_lib import diagrams
from spacedkd_lib.recipes import InputError


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


@pytest.mark.parametrize("student, factor", [((15, 8, 8), (8, 8, 8)), ((16, 4, 4), (8, 8, 8)), ((16, 8, 8), (8, 4, 4))])
def test_shapes_that_are_no_ie_kd_are_refused(student, factor):
    with pytest.raises(InputError, match="even number"):
        diagrams.split_student(student, (16, 8, 8), factor, (3, 32, 32))
