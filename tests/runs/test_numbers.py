"""Numbers as a reader wants them."""

from __future__ import annotations

import pytest

from saikei.runs import numbers
from saikei.scoring.score import Difference


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (numbers.metric_value("accuracy", 0.98314), "98.31 %"),
        (numbers.metric_value("binary_accuracy", 1.0), "100.00 %"),
        (numbers.metric_value("mse", 0.0123456), "0.01235"),
        (numbers.interval("accuracy", 0.9, 0.95), "[90.0, 95.0]"),
        (numbers.signed("accuracy", -0.0028), "−0.28"),
        (numbers.signed("accuracy", 0.0028), "+0.28"),
        (numbers.signed("accuracy", -0.00001), "0.00"),
        (numbers.signed("mse", 0.5), "+0.5"),
        (numbers.amount("accuracy", 0.0028), "0.28 points"),
        (numbers.amount("accuracy", -0.0028), "0.28 points"),
        (numbers.amount("mse", 0.5), "0.5 mse"),
        (
            numbers.difference("accuracy", Difference(0.01, -0.002, 0.022)),
            "+1.00 points [−0.20, +2.20]",
        ),
        (numbers.count(1234567), "1,234,567"),
        (numbers.milliseconds(None), "–"),
        (numbers.ratio(1, 8), "12.5 %"),
        (numbers.ratio(None, 8), "–"),
        (numbers.ratio(1, 0), "–"),
        (numbers.duration(59.94), "59.9 s"),
        (numbers.duration(125), "2 min 05 s"),
    ],
)
def test_a_number_reads_so(shown: str, expected: str) -> None:
    assert shown == expected
