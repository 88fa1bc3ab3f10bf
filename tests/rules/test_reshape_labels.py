"""Labels through a reshape, against NumPy moving the labels themselves."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from saikei.channels.propagation import components
from saikei.rules.reshaping import reshape_labels


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes of one size."""
    factors = draw(st.lists(st.sampled_from([1, 2, 2, 3, 3, 4, 5]), min_size=1, max_size=5))

    def regroup() -> tuple[int, ...]:
        shape = [1]
        for factor in factors:
            if draw(st.booleans()):
                shape.append(factor)
            else:
                shape[-1] *= factor
        return tuple(shape)

    return regroup(), regroup()


@given(reshapes(), st.data())
def test_every_element_keeps_its_channel(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], data: st.DataObject
) -> None:
    before, after = shapes
    axis = data.draw(st.integers(0, len(before) - 1))
    size = before[axis]
    vector = np.arange(size, dtype=np.int64)
    moved = np.broadcast_to(
        vector.reshape([size if a == axis else 1 for a in range(len(before))]), before
    ).reshape(after)
    labels = tuple(vector if a == axis else None for a in range(len(before)))
    outputs, ties, pins = reshape_labels(labels, before, after)
    channel = components(size, list(ties))
    found = [(a, v) for a, v in enumerate(outputs) if v is not None]
    assert len(found) <= 1
    if not found:
        assert set(np.concatenate([p.labels for p in pins])) == set(vector)
        return
    axis_out, vector_out = found[0]
    expected = np.moveaxis(channel[moved], axis_out, 0).reshape(after[axis_out], -1)
    assert (expected == channel[vector_out][:, None]).all()


@given(reshapes(), st.data())
def test_a_flatten_that_is_undone_ties_nothing(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], data: st.DataObject
) -> None:
    before, _ = shapes
    axis = data.draw(st.integers(0, len(before) - 1))
    assume(before[axis] > 1)
    vector = np.arange(before[axis], dtype=np.int64)
    labels = tuple(vector if a == axis else None for a in range(len(before)))
    flat, _, pins = reshape_labels(labels, before, (int(np.prod(before)),))
    assert not pins
    back, ties, _ = reshape_labels(flat, (int(np.prod(before)),), before)
    assert not ties
    np.testing.assert_array_equal(back[axis], vector)


def test_axes_of_unknown_size_pass_when_they_stand_still() -> None:
    vector = np.arange(6)
    outputs, ties, pins = reshape_labels(
        (None, None, None, vector), (None, None, None, 6), (None, None, 6)
    )
    assert (outputs[:2], ties, pins) == ((None, None), (), ())
    assert outputs[2] is vector


def test_a_channel_axis_that_is_joined_with_an_unknown_one_is_pinned() -> None:
    vector = np.arange(6)
    _, _, pins = reshape_labels((None, None, vector), (None, None, 6), (None, None))
    assert len(pins) == 1
