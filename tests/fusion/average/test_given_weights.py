"""Given weights are checked before anything is built, and errors name the class."""

from __future__ import annotations

import pytest

from saikei.errors import FusionError
from saikei.fusion.average.arguments import checked_given, for_outputs

TABLE = ((0.5, 0.5), (0.25, 0.75), (0, 1))


def test_lists_become_tuples_of_floats_at_every_level():
    assert checked_given([1, 0]) == (1.0, 0.0)
    assert checked_given([[1, 0], (0.5, 0.5)]) == ((1.0, 0.0), (0.5, 0.5))
    assert checked_given([[[1, 0]], [[0, 1], [1, 0]]]) == (((1.0, 0.0),), ((0.0, 1.0), (1.0, 0.0)))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (((0.5, 0.5), (0.5, 0.4)), "weights of class 1 sum to 0.9, not to 1: divide each"),
        (((0.5, 0.5), (1.5, -0.5)), "of class 1 must be finite and at least 0"),
        (((0.5, 0.5), (0.2, 0.3, 0.5)), r"hold \[2, 3\] numbers"),
        (((0.5, 0.5), 0.5), "of class 1 are not nested"),
        ((0.5, (0.5, 0.5)), "no numbers"),
        ((((0.5, 0.5),), ((0.5, 0.1),)), "of class 0 of output 1 sum to 0.6"),
        (((((1.0,),),),), "too deeply"),
        (((), ()), "of class 0 sum to 0, not to 1"),
        ((), "sum to 0, not to 1"),
        (("a", "b"), "no numbers"),
    ],
)
def test_what_is_wrong_is_named_with_its_class(weights, message):
    with pytest.raises(FusionError, match=message) as caught:
        checked_given(weights)
    assert "\n" not in str(caught.value)


def test_shared_weights_serve_all_outputs_and_a_table_its_one():
    assert for_outputs((0.5, 0.5), 2, [3, 1]) == ((0.5, 0.5), (0.5, 0.5))
    assert for_outputs(TABLE, 2, [3]) == (TABLE,)
    assert for_outputs((TABLE, TABLE[:1]), 2, [3, 1]) == (TABLE, TABLE[:1])


@pytest.mark.parametrize(
    ("weights", "members", "widths", "message"),
    [
        ((0.5, 0.5), 3, [3], "2 weights are given for 3 members"),
        (TABLE, 3, [3], "2 weights are given for 3 members"),
        (TABLE, 2, [4], "3 rows of weights are given for the 4 classes of output 1"),
        (TABLE, 2, [3, 3], "1 tables of weights are given for 2 outputs"),
    ],
)
def test_weights_that_do_not_fit_the_members_are_refused(weights, members, widths, message):
    with pytest.raises(FusionError, match=message):
        for_outputs(weights, members, widths)
