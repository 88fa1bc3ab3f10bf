"""An order of classes is found where the outputs leave no doubt of it, and only there."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from saikei.fusion.agreement.order import other_order
from tests.judging.explaining import made_up

ORDER = [2, 0, 1, 3]


def shuffled(array, order):
    """Outputs with each class in the column that `order` has for it."""
    return array[..., np.argsort(order)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("made", [made_up.classes, made_up.labels, made_up.numbers])
def test_outputs_in_the_order_of_the_labels_have_no_other(made, seed):
    outputs, y = made(members=4, rows=300, count=4, seed=seed)
    kind = {"classes": "multiclass", "labels": "multilabel", "numbers": "regression"}
    task = made_up.task(kind[made.__name__], outputs=4)
    assert [other_order(task, y, one) for one in outputs] == [None] * 4


@pytest.mark.parametrize(
    ("kind", "made"),
    [("multilabel", made_up.labels), ("regression", made_up.numbers)],
)
def test_the_order_of_labels_and_of_targets_is_found(kind, made):
    outputs, y = made(members=1, rows=300, count=4)
    found = other_order(made_up.task(kind, outputs=4), y, shuffled(outputs[0], ORDER))
    assert found is not None
    assert list(found.columns) == ORDER
    assert found.moved == (0, 1, 2)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("from_logits", [True, False])
def test_the_order_of_classes_is_found(sparse, from_logits):
    generator = np.random.default_rng(0)
    y = generator.integers(0, 4, 200)
    outputs = 2 * np.eye(4)[y] + generator.normal(size=(200, 4))
    if not from_logits:
        outputs = special.softmax(outputs, axis=-1)
    task = made_up.task(outputs=4, sparse=sparse, from_logits=from_logits)
    found = other_order(task, y if sparse else np.eye(4)[y], shuffled(outputs, ORDER))
    assert found is not None
    assert list(found.columns) == ORDER


def test_two_classes_of_twenty_that_changed_places_are_found():
    generator = np.random.default_rng(0)
    y = generator.integers(0, 20, 2000)
    outputs = special.softmax(4 * np.eye(20)[y] + generator.normal(size=(2000, 20)), axis=-1)
    order = np.arange(20)
    order[[3, 17]] = 17, 3
    found = other_order(made_up.task(outputs=20), y, shuffled(outputs, order))
    assert found is not None
    assert found.moved == (3, 17)


def test_one_probability_of_the_other_class_is_found():
    generator = np.random.default_rng(0)
    y = generator.integers(0, 2, 100)
    p = special.expit(2 * y - 1 + generator.normal(size=100))[:, None]
    task = made_up.task("binary", 1)
    assert other_order(task, y[:, None], p) is None
    found = other_order(task, y[:, None], 1 - p)
    assert found is not None
    assert found.columns == (1, 0)


def test_the_order_of_the_classes_of_a_map_is_found():
    generator = np.random.default_rng(0)
    y = generator.integers(0, 4, (40, 3, 3))
    outputs = special.softmax(2 * np.eye(4)[y] + generator.normal(size=(40, 3, 3, 4)), axis=-1)
    task = made_up.task(outputs=4)
    assert other_order(task, y, outputs) is None
    found = other_order(task, y, shuffled(outputs, ORDER))
    assert found is not None
    assert list(found.columns) == ORDER


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("rows", [4, 12, 60, 1000])
def test_predictions_without_information_on_the_labels_have_no_order(rows, seed):
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 3, rows)
    noise = special.softmax(generator.normal(size=(rows, 3)), axis=-1)
    constant = np.tile(special.softmax(generator.normal(size=3)), (rows, 1))
    uneven = np.where(generator.uniform(size=rows) < 0.9, 2, y)
    for outputs, truth in ((noise, y), (constant, y), (constant, uneven), (noise, uneven)):
        assert other_order(made_up.task(outputs=3), truth, outputs) is None


def test_a_class_without_rows_is_no_reason():
    generator = np.random.default_rng(0)
    y = generator.integers(0, 3, 300)
    outputs = special.softmax(3 * np.eye(5)[y] + generator.normal(size=(300, 5)), axis=-1)
    assert other_order(made_up.task(outputs=5), y, outputs) is None


def test_one_number_has_no_order():
    outputs, y = made_up.numbers(members=1, rows=100, count=1)
    assert other_order(made_up.task("regression", 1), y, -outputs[0]) is None
