"""The distance between features, and how its projectors start."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from saikei.distilling.distances import FeatureMatch, averaging
from saikei.distilling.features import Feature, Pair
from saikei.errors import DataError
from saikei.graph import TensorRef

pytestmark = pytest.mark.backends

RNG = np.random.default_rng(0)


def pair(ours, theirs, axes=(-1, -1)):
    shapes = zip(("s", "t"), axes, (ours, theirs), strict=True)
    return Pair(*(Feature(name, TensorRef(0, 0), axis, s, "float32") for name, axis, s in shapes))


def matched(one, ours, theirs):
    tensors = [keras.ops.convert_to_tensor(a.astype("float32")) for a in (ours, theirs)]
    match = FeatureMatch([one])
    match.start([tensors[0]], [tensors[1]])
    return match, float(keras.ops.convert_to_numpy(match([tensors[0]], [tensors[1]])))


def test_the_distance_is_the_squared_difference_in_variances_of_the_teacher():
    ours, theirs = RNG.normal(size=(2, 30, 6))
    expected = ((ours - theirs) ** 2).mean() / theirs.var(axis=0).mean()
    assert matched(pair((6,), (6,)), ours, theirs)[1] == pytest.approx(expected, rel=1e-5)
    scaled = matched(pair((6,), (6,)), 100 * ours, 100 * theirs)[1]
    assert scaled == pytest.approx(expected, rel=1e-5)


def test_a_projector_starts_where_least_squares_puts_it():
    ours = RNG.normal(size=(50, 3, 4))
    theirs = ours @ RNG.normal(size=(4, 7)) + RNG.normal(size=7)
    match, distance = matched(pair((3, 4), (3, 7)), ours, theirs)
    assert distance == pytest.approx(0, abs=1e-4)
    assert [tuple(v.shape) for v in match.trainable_variables] == [(4, 7), (7,)]
    noise = matched(pair((3, 4), (3, 7)), ours, RNG.normal(size=theirs.shape))[1]
    assert 0.8 < noise <= 1.0


def test_equal_widths_have_no_projector():
    match, _ = matched(pair((6,), (6,)), *RNG.normal(size=(2, 30, 6)))
    assert match.variables == []


def test_channels_first_meets_channels_last():
    values = RNG.normal(size=(9, 4, 5, 3))
    one = pair((4, 5, 3), (4, 5, 3), (1, -1))
    assert matched(one, np.moveaxis(values, -1, 1), values)[1] == pytest.approx(0, abs=1e-9)


def test_the_finer_resolution_is_averaged():
    fine = RNG.normal(size=(9, 6, 8, 3))
    coarse = fine.reshape(9, 3, 2, 4, 2, 3).mean(axis=(2, 4))
    for ours, theirs in ((fine, coarse), (coarse, fine)):
        one = pair(ours.shape[1:], theirs.shape[1:])
        assert matched(one, ours, theirs)[1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("size", "wanted"), [(7, 3), (8, 4), (5, 1), (5, 4), (9, 6)])
def test_averaging_is_adaptive_average_pooling(size, wanted):
    values = RNG.normal(size=size)
    expected = [
        values[int(np.floor(i * size / wanted)) : int(np.ceil((i + 1) * size / wanted))].mean()
        for i in range(wanted)
    ]
    assert values @ averaging(size, wanted) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("fill", [0.0, 3.0])
def test_a_constant_feature_is_refused_by_name(fill):
    with pytest.raises(DataError, match="'t' of the teacher gives the same numbers"):
        matched(pair((6,), (6,)), RNG.normal(size=(30, 6)), np.full((30, 6), fill))


def test_a_feature_that_is_not_finite_is_refused_by_name():
    with pytest.raises(DataError, match="'t' of the teacher gives NaN"):
        matched(pair((6,), (6,)), RNG.normal(size=(30, 6)), np.full((30, 6), np.nan))
