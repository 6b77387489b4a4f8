"""Single prompts: where they lie, which mark of a figure is which, and how they changed."""

from __future__ import annotations

import re

import numpy as np
import pytest

from jobs.analyze.figures.projection import draw_projection, project
from jobs.analyze.positions import locate
from jobs.analyze.sections_prompts import mean_with_interval
from pipeline_common.measures import Estimate


def test_a_prompt_is_located_by_centres_it_is_not_part_of() -> None:
    # On a line, by hand. Base: safe 0 and 2, unsafe 10 and 14. The safe prompt at 0 is measured by safe centre 2 and
    # unsafe centre 12: halfway 7, distance 10, so (0 - 7) / 10. Tuned: safe 0 and 2, unsafe 6 and 8: its own halfway
    # for that prompt is (2 + 7) / 2 = 4.5, in the base's unit: (0 - 4.5) / 10.
    base = np.asarray([[0.0], [2.0], [10.0], [14.0]], dtype=np.float32)
    tuned = np.asarray([[0.0], [2.0], [6.0], [8.0]], dtype=np.float32)
    unsafe = np.asarray([False, False, True, True])
    found = locate(base, tuned, unsafe)
    assert found is not None
    assert found[0][0] == pytest.approx(-0.7)
    assert found[1][0] == pytest.approx(-0.45)
    # The unsafe prompt at 10: safe centre 1, unsafe centre 14, halfway 7.5, distance 13.
    assert found[0][2] == pytest.approx(2.5 / 13)
    assert found[1][2] == pytest.approx((6 - 4.5) / 13)


def test_random_labels_do_not_lie_apart_however_many_dimensions_there_are() -> None:
    random = np.random.default_rng(11)
    states = random.normal(size=(120, 2000)).astype(np.float32)
    unsafe = np.arange(120) % 2 == 0
    found = locate(states, states, unsafe)
    assert found is not None
    gap = found[0][unsafe].mean() - found[0][~unsafe].mean()
    # With each prompt in its own centre the gap would be 1 by definition.
    assert abs(gap) < 0.1
    assert np.array_equal(found[0], found[1])


def test_positions_are_undefined_where_there_is_no_direction() -> None:
    same = np.ones((6, 3), dtype=np.float32)
    assert locate(same, same, np.asarray([True, False] * 3)) is None
    assert locate(same, same, np.asarray([True, False, False, False, False, False])) is None


def test_the_plane_is_that_of_scikit_learn_up_to_sign() -> None:
    from sklearn.decomposition import PCA

    random = np.random.default_rng(5)
    for shape in ((40, 9), (12, 50)):
        base = random.normal(size=shape) * np.linspace(5, 1, shape[1])
        plane = PCA(n_components=2, svd_solver="full").fit(base)
        first, second, shares = project(base.astype(np.float32), 2 * base.astype(np.float32))
        assert np.allclose(np.abs(first), np.abs(plane.transform(base)), atol=1e-4)
        assert np.allclose(np.abs(second), np.abs(plane.transform(2 * base)), atol=1e-4)
        assert shares == pytest.approx(plane.explained_variance_ratio_, abs=1e-6)


def test_every_mark_of_a_figure_stands_for_the_prompt_it_names() -> None:
    random = np.random.default_rng(5)
    base = random.normal(size=(30, 4)).astype(np.float32)
    tuned = random.normal(size=(30, 4)).astype(np.float32)
    labels = ["unsafe" if number % 3 == 0 else "safe" for number in range(30)]
    picture = draw_projection(base, tuned, labels)
    planes = dict(zip(("base", "tuned"), project(base, tuned)[:2], strict=True))
    for name, members in picture.points.items():
        _, role, label = name.split("-")
        assert members == tuple(number for number in range(30) if labels[number] == label)
        group = picture.svg[picture.svg.index(f'id="{name}"') :]
        marks = re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', group[: group.index("</g>\n   </g>")])
        places = np.asarray(marks, dtype=float)
        wanted = planes[role][list(members)]
        # The same places up to the scale of the drawing, whose vertical axis points down.
        assert np.corrcoef(places[:, 0], wanted[:, 0])[0, 1] == pytest.approx(1, abs=1e-6)
        assert np.corrcoef(places[:, 1], wanted[:, 1])[0, 1] == pytest.approx(-1, abs=1e-6)
    moved = np.linalg.norm(planes["tuned"] - planes["base"], axis=1)
    assert np.array_equal(moved[list(picture.order)], np.sort(moved)[::-1])


def test_the_mean_change_has_students_interval() -> None:
    # By hand: mean 2, standard deviation 1, t of 2 degrees of freedom 4.302653, so half = 4.302653 / sqrt(3).
    found = mean_with_interval([1.0, 2.0, 3.0])
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 2 - 2.484138, 2 + 2.484138), abs=1e-6)
    assert mean_with_interval([4.0]) == Estimate(value=4.0)
    assert mean_with_interval([]) == Estimate(value=None)
