"""The oracle, for tests: silence channels, cut them, compare.

A channel whose values are zero everywhere can be removed without changing the function. A rule
of your own layer is right when `assert_cuts_exactly` passes on models that use the layer.
"""

from saikei.testing.oracle import (
    CutCheck,
    assert_cuts_exactly,
    check_cut,
    random_inputs,
    random_mask,
    randomise_statistics,
)
from saikei.testing.silence import silence

__all__ = [
    "CutCheck",
    "assert_cuts_exactly",
    "check_cut",
    "random_inputs",
    "random_mask",
    "randomise_statistics",
    "silence",
]
