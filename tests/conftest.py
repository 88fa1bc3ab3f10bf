"""What holds for all tests."""

from __future__ import annotations

import gc
from collections import defaultdict

import keras
import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no fault of what is tested.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def pytest_collection_finish() -> None:
    """Exclude what was imported from garbage collection, which takes a tenth of the time else."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all but two cases of a sampled test as long: the first, and the one in the middle."""
    cases = defaultdict(list)
    for item in items:
        if item.get_closest_marker("sampled") and not item.get_closest_marker("slow"):
            cases[item.nodeid.partition("[")[0]].append(item)
    for each in cases.values():
        quick = {0, len(each) // 2}
        for number, item in enumerate(each):
            if number not in quick:
                item.add_marker(pytest.mark.long)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Seed Keras before the fixtures of each test, whatever ran before it in the same process.

    Layers draw the seeds of their initial weights when they are made, which is often in the
    arguments of the function that seeds.
    """
    keras.utils.set_random_seed(0)
