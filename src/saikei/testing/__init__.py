"""What the tests of rules, edits and fusions of your own can call.

- A channel whose values are zero everywhere can be removed without changing the function: a rule
  is right when `assert_cuts_exactly` passes on models that use the layer.
- An edit or a fusion does what every other does when `assert_is_edit` or `assert_is_fusion` passes.
"""

from saikei.testing.contracts import assert_is_edit, assert_is_fusion, assert_loads_alone
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
    "assert_is_edit",
    "assert_is_fusion",
    "assert_loads_alone",
    "check_cut",
    "random_inputs",
    "random_mask",
    "randomise_statistics",
    "silence",
]
