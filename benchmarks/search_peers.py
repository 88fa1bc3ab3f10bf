"""Other searches for a small network, for `search.py`, written on Saikei's public edits."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np
from search_tasks import Task, accuracy, macs

import saikei as sk
from saikei.calibration.samples import Samples
from saikei.channels import ChannelMap
from saikei.graph import fresh_model
from saikei.importance import CRITERIA, Scores

# Candidates of a random search, and of one that trains each for an epoch.
RANDOM = 5
SHORT = 15
# Of the plan that was used before the present search: 9 trainings of so many epochs.
EARLIER = 15


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Args:
        model: The candidate that is best on validation.
        epochs: Epochs of all trainings together.
    """

    model: keras.Model
    epochs: int


def random_search(
    task: Task, model: keras.Model, share: float, epochs: int, rng: np.random.Generator
) -> Found:
    """Random structures with random settings, each trained for an equal part of the epochs."""
    each = epochs // RANDOM
    students = []
    for _ in range(RANDOM):
        student = random_structure(task, model, share, rng)
        distill(task, student, model, each, **random_settings(rng))
        students.append(student)
    return Found(best(task, students), each * RANDOM)


def one_epoch_each(
    task: Task, model: keras.Model, share: float, epochs: int, rng: np.random.Generator
) -> Found:
    """Random candidates for one epoch each; the best one gets all the others.

    With its settings it begins once more from the weights after the cut, as its rate has fallen.
    """
    tried = []
    for _ in range(SHORT):
        student, settings = random_structure(task, model, share, rng), random_settings(rng)
        start = student.get_weights()
        distill(task, student, model, 1, **settings)
        tried.append((accuracy(student, task.validation), student, start, settings))
    _, student, start, settings = max(tried, key=lambda one: one[0])
    student.set_weights(start)
    distill(task, student, model, epochs - SHORT, **settings)
    return Found(student, epochs)


def earlier_plan(task: Task, model: keras.Model, share: float, seed: int) -> Found:
    """Saikei's plan before the present search: 4 structures, kept and fresh, 15 epochs each.

    One more is trained on labels alone. Averages of up to three that keep the limit take part.
    """
    students: list[keras.Model] = []
    cuts = [(1.0, "global"), (1 / 2, "global"), (1 / 3, "global"), (1 / 3, "layer")]
    for part, scope in cuts:
        limit = sk.Budget(macs=int(part * share * macs(model)))
        kept = sk.PruneChannels(limit, scope=scope)(model, task.train)
        fresh = fresh_model(kept, seed)
        if not students:
            labelled = keras.models.clone_model(kept)
            labelled.set_weights(kept.get_weights())
            sk.fit(
                labelled,
                task.train,
                task.validation,
                epochs=EARLIER,
                batch_size=task.batch_size,
                learning_rate=6e-4,
                seed=seed,
                progress=False,
            )
            students.append(labelled)
        for student, rate in ((kept, 6e-4), (fresh, 3e-3)):
            distill(task, student, model, EARLIER, learning_rate=rate)
            students.append(student)
    groups = [group for count in (2, 3) for group in itertools.combinations(students, count)]
    limit = share * macs(model)
    averages = [sk.Average()(group) for group in groups if sum(map(macs, group)) <= limit]
    return Found(best(task, [*students, *averages]), EARLIER * len(students))


def distill(
    task: Task, student: keras.Model, teacher: keras.Model, epochs: int, **settings: float
) -> None:
    """Train in place, over a falling rate; the best epoch on validation stays."""
    sk.distill(
        student,
        teacher,
        task.train,
        task.validation,
        epochs=epochs,
        batch_size=task.batch_size,
        progress=False,
        **settings,
    )


def random_settings(rng: np.random.Generator) -> dict[str, float]:
    """Settings around those that are good for these networks."""
    return {
        "learning_rate": float(np.exp(rng.uniform(np.log(6e-4), np.log(1e-2)))),
        "temperature": float(rng.uniform(1, 8)),
        "alpha": float(rng.uniform(0.1, 0.9)),
    }


def random_structure(
    task: Task, model: keras.Model, share: float, rng: np.random.Generator
) -> keras.Model:
    """Random widths as large as the limit allows, refitted to the training data."""

    def widths(channels: ChannelMap, _: np.random.Generator, samples: Samples | None) -> Scores:
        """In each group the best channels stay; random factors weigh the groups."""
        scores = CRITERIA["reconstruction"].score(channels, rng, samples)
        for group in channels.groups:
            ranks = scores[group.channels].argsort().argsort()
            scores[group.channels] = rng.uniform(0.3, 1.0) * (1 + ranks) / group.size
        return scores

    limit = sk.Budget(macs=int(share * macs(model)))
    return sk.PruneChannels(limit, importance=widths)(model, task.train)


def best(task: Task, models: list[keras.Model]) -> keras.Model:
    """The best on validation; the first of equal ones."""

    def scored() -> Iterator[tuple[float, keras.Model]]:
        for model in models:
            found = accuracy(model, task.validation)
            print(f"    {100 * found:.2f} % on validation", file=sys.stderr)
            yield found, model

    return max(scored(), key=lambda pair: pair[0])[1]
