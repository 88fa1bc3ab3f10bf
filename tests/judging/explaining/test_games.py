"""Each coalition loses what the fusion of its members loses, in whichever form it is computed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from saikei.errors import FusionError
from saikei.fusion.evidence import MemberOutputs
from saikei.judging.explaining.coalitions import JoinedCoalitions, MeanCoalitions
from saikei.judging.explaining.games import JoinedGame, MeanGame, OutputsGame, game_of
from saikei.judging.explaining.shapley import all_coalitions, exact_shapley
from saikei.scoring.labelled import Labelled
from saikei.scoring.score import per_sample
from tests.judging.explaining import made_up

WEIGHTS = (0.4, 0.3, 0.2, 0.1)


def mean_coalitions(tasks, labels, members, weights=WEIGHTS):
    predictions = MemberOutputs(tuple(tuple(parts) for parts in members))
    return MeanCoalitions(
        predictions, weights, Labelled.of(tasks, labels).prior(predictions.outputs[0])
    )


def one(task, data, **options):
    """Tasks, labels and the coalitions of members with one output."""
    members, y = data
    return (task,), (y,), mean_coalitions((task,), (y,), [[part] for part in members], **options)


def one_hot():
    members, y = made_up.classes()
    return members, np.eye(3)[y]


def soft():
    members, y = made_up.classes()
    return members, 0.9 * np.eye(3)[y] + 0.1 / 3


def dense():
    members, y = made_up.classes()
    return [part.reshape(10, 2, 3, 3) for part in members], y.reshape(10, 2, 3)


def logits(members_and_labels, link):
    members, y = members_and_labels
    return [link(part) for part in members], y


CASES = {
    "classes": (one(made_up.task(), made_up.classes()), MeanGame),
    "one-hot": (one(made_up.task(sparse=False), one_hot()), MeanGame),
    "soft labels": (one(made_up.task(sparse=False), soft()), OutputsGame),
    "dense": (one(made_up.task(), dense()), MeanGame),
    "binary": (one(made_up.task("binary", 1), made_up.labels(count=1)), MeanGame),
    "multilabel": (one(made_up.task("multilabel"), made_up.labels()), MeanGame),
    "regression": (one(made_up.task("regression", 2), made_up.numbers()), MeanGame),
    "class logits": (
        one(made_up.task(from_logits=True), logits(made_up.classes(), np.log)),
        OutputsGame,
    ),
    "binary logits": (
        one(
            made_up.task("binary", 1, from_logits=True),
            logits(made_up.labels(count=1), special.logit),
        ),
        OutputsGame,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_coalition_loses_what_the_scaled_mean_of_its_members_loses(case):
    (tasks, labels, mean), kind = CASES[case]
    game = game_of(tasks, labels, mean, "loss")
    assert isinstance(game, kind)
    coalitions = all_coalitions(4)
    assert game.rows == len(labels[0])
    losses = game.losses(coalitions)
    for present, lost in zip(coalitions[1:], losses[1:], strict=True):
        outputs = [member[0] for member in mean.predictions.outputs]
        mixed = np.average(outputs, axis=0, weights=present * WEIGHTS)
        np.testing.assert_allclose(lost, Labelled.of(tasks, labels).losses([mixed]), atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_the_empty_coalition_predicts_label_frequencies_which_no_constant_beats(case):
    (tasks, labels, mean), _ = CASES[case]
    lost = game_of(tasks, labels, mean, "loss").losses(all_coalitions(4)[:1])[0].mean()
    (prior,) = mean.prior
    for step in (-0.05, 0.05):
        for place in range(prior.shape[-1]):
            other = prior.copy()
            other[..., place] += step
            if tasks[0].kind == "multiclass" and not tasks[0].from_logits:
                other /= other.sum(axis=-1, keepdims=True)
            assert Labelled.of(tasks, labels).losses([other]).mean() > lost


def test_several_outputs_lose_their_sum():
    (a, ya, first), _ = CASES["classes"]
    (b, yb, second), _ = CASES["regression"]
    pairs = zip(first.predictions.outputs, second.predictions.outputs, strict=True)
    both = mean_coalitions((*a, *b), (*ya, *yb), [(*p, *q) for p, q in pairs])
    game = game_of((*a, *b), (*ya, *yb), both, "loss")
    assert isinstance(game, MeanGame)
    coalitions = all_coalitions(4)
    parts = [game_of(a, ya, first, "loss"), game_of(b, yb, second, "loss")]
    np.testing.assert_allclose(
        game.losses(coalitions), sum(part.losses(coalitions) for part in parts)
    )


@pytest.mark.parametrize("case", ["classes", "one-hot", "binary", "multilabel", "class logits"])
def test_accuracy_loses_errors(case):
    (tasks, labels, mean), _ = CASES[case]
    game = game_of(tasks, labels, mean, "accuracy")
    present = np.array([True, False, True, True])
    right = per_sample(tasks[0], labels[0], mean.outputs(present)[0])
    np.testing.assert_array_equal(game.losses(present[None])[0], 1 - right)


def test_a_member_of_weight_0_has_no_value_and_twins_have_equal_ones():
    members, y = made_up.classes()
    members[2] = members[1]
    tasks, labels, mean = one(made_up.task(), (members, y), weights=(0.5, 0.25, 0.25, 0.0))
    for metric in ("loss", "accuracy"):
        values = exact_shapley(game_of(tasks, labels, mean, metric)).values
        assert values[3] == pytest.approx(0.0, abs=1e-15)
        assert values[1] == pytest.approx(values[2], abs=1e-15)
        assert values[0] != pytest.approx(values[1])


def test_probabilities_of_zero_are_clipped_after_the_mean_as_in_the_score():
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    tasks, labels, mean = one(
        made_up.task(outputs=2), ([certain, certain[::-1]], np.array([0, 0])), weights=(0.5, 0.5)
    )
    losses = game_of(tasks, labels, mean, "loss").losses(all_coalitions(2))
    for present, lost in zip(all_coalitions(2), losses, strict=True):
        np.testing.assert_allclose(lost, Labelled.of(tasks, labels).losses(mean.outputs(present)))
    assert np.isfinite(losses).all()


def test_folds_are_joined_in_the_order_of_their_rows():
    (tasks, labels, mean), _ = CASES["classes"]
    rows = [np.arange(0, 60, 2), np.arange(1, 60, 2)]
    parts = []
    for here, weights in zip(rows, (WEIGHTS, WEIGHTS[::-1]), strict=True):
        predictions = mean.predictions.map(lambda array, here=here: array[here])
        parts.append(
            (here, MeanCoalitions(predictions, weights, tuple(p[here] for p in mean.prior)))
        )
    joined = JoinedCoalitions(mean.predictions, tuple(parts))
    game = game_of(tasks, labels, joined, "loss")
    assert isinstance(game, JoinedGame)
    coalitions = all_coalitions(4)
    losses = game.losses(coalitions)
    for present, lost in zip(coalitions, losses, strict=True):
        np.testing.assert_allclose(lost, Labelled.of(tasks, labels).losses(joined.outputs(present)))
    whole = game_of(tasks, labels, mean, "loss").losses(coalitions)
    np.testing.assert_allclose(losses[:, rows[0]], whole[:, rows[0]])
    assert not np.allclose(losses[:, rows[1]], whole[:, rows[1]])


def test_a_metric_that_does_not_exist_is_refused():
    (tasks, labels, mean), _ = CASES["regression"]
    with pytest.raises(FusionError, match="no accuracy of a regression: use metric='loss'"):
        game_of(tasks, labels, mean, "accuracy")
    with pytest.raises(FusionError, match="no accuracy of 2 outputs"):
        game_of(tasks * 2, labels * 2, mean, "accuracy")
    with pytest.raises(FusionError, match="metric='auc' is unknown"):
        game_of(tasks, labels, mean, "auc")
