"""Members go as long as those who are left lose nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from saikei.fusion.evidence import MemberOutputs
from saikei.judging.explaining.coalitions import MeanCoalitions
from saikei.judging.explaining.games import game_of
from saikei.judging.explaining.removable import losses_without, removable
from saikei.scoring.labelled import Labelled
from tests.judging.explaining import made_up


def game(members, y, task=None, weights=None):
    task = task or made_up.task()
    weights = weights or (1 / len(members),) * len(members)
    outputs = MemberOutputs(tuple((part,) for part in members))
    mean = MeanCoalitions(outputs, weights, Labelled.of((task,), (y,)).prior((members[0],)))
    return game_of((task,), (y,), mean, "loss")


def test_a_loss_is_the_paired_difference_with_its_standard_error():
    members, y = made_up.classes(rows=100)
    task = made_up.task()
    (lost,) = losses_without(game(members, y), [(1, 3)])
    less = Labelled.of([task], [y]).losses([(members[0] + members[2]) / 2])
    full = Labelled.of([task], [y]).losses([np.mean(members, axis=0)])
    assert lost.members == (1, 3)
    assert lost.more == pytest.approx((less - full).mean())
    assert lost.error == pytest.approx(stats.sem(less - full))


def test_a_member_that_is_noise_goes_and_good_ones_stay():
    generator = np.random.default_rng(0)
    y = generator.normal(size=(400, 1))
    good = [y + generator.normal(size=y.shape) for _ in range(3)]
    noise = 3 * generator.normal(size=y.shape)
    gone = removable(game([*good, noise], y, made_up.task("regression", 1)))
    assert gone.members == (3,)
    assert gone.more < 0


def test_all_but_one_of_equal_members_go():
    members, y = made_up.classes(members=1)
    gone = removable(game(members * 4, y))
    assert len(gone.members) == 3
    assert gone.more == pytest.approx(0.0, abs=1e-12)


def test_members_of_weight_0_go():
    generator = np.random.default_rng(0)
    y = generator.normal(size=(400, 1))
    members = [y + generator.normal(size=y.shape) for _ in range(4)]
    weights = (0.5, 0.0, 0.5, 0.0)
    gone = removable(game(members, y, made_up.task("regression", 1), weights))
    assert sorted(gone.members) == [1, 3]
    assert (gone.more, gone.error) == (0.0, 0.0)


def without_looking_back(played):
    """Which members go if each is compared only with the members left just before it."""
    gone = ()
    while len(gone) < played.members - 1:
        left = [i for i in range(played.members) if i not in gone]
        present = ~np.isin(np.arange(played.members), gone)
        before = played.losses(present[None])[0]
        steps = []
        for member in left:
            less = present & (np.arange(played.members) != member)
            steps.append(played.losses(less[None])[0] - before)
        least = min(steps, key=np.mean)
        if least.mean() >= stats.sem(least):
            break
        gone += (left[min(range(len(left)), key=lambda i: steps[i].mean())],)
    return gone


def test_small_losses_do_not_add_up_unseen():
    added_up = 0
    for seed in range(10):
        generator = np.random.default_rng(seed)
        y = generator.normal(size=(25, 1))
        members = [y + generator.normal(size=y.shape) for _ in range(10)]
        played = game(members, y, made_up.task("regression", 1))
        gone = removable(played)
        assert gone.is_none
        assert gone.more == pytest.approx(losses_without(played, [gone.members])[0].more)
        (other,) = losses_without(played, [without_looking_back(played)])
        added_up += not other.is_none
    assert added_up > 0
