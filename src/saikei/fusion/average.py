"""`Average`: one model that says the mean of what its members say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras

from saikei.errors import FusionError
from saikei.fusion.base import Fusion
from saikei.fusion.evidence import Combiner, Evidence, Members, Said, WeightedMean, deployed, gather
from saikei.fusion.greedy import ROUNDS, Metric, Selection, select_weights
from saikei.fusion.members import check_members, mean_model, side_by_side
from saikei.fusion.shared_prefix import compacted
from saikei.fusion.weights import FittedWeights, checked_weights, fit_weights
from saikei.training.outputs import read_outputs
from saikei.training.provenance import record_rows

Weights = tuple[float, ...] | Literal["learn", "greedy"] | None


@dataclass(frozen=True)
class Average(Fusion):
    """The mean of the members' outputs, `Σ wᵢ yᵢ` with `wᵢ ≥ 0` and `Σ wᵢ = 1`.

    Members that end in softmax or sigmoid are averaged in probability, members that give logits
    in logits.

    Args:
        weights: `None` for equal ones, one number for each member, or fitted to data that no
            member was trained on: `"learn"` for the best convex ones, with their optimality gap,
            or `"greedy"` for those of greedy selection (see `saikei.fusion.select_weights`).
        rounds: of the greedy selection.
        bags: likewise: how many selections among half of the members are averaged.
        metric: likewise: `"loss"` or `"accuracy"`.
        seed: of the bags.

    Raises:
        FusionError: when weights are negative or do not sum to 1.

    Example:
        >>> Average(weights=(0.25, 0.75)).to_dict()
        {'weights': [0.25, 0.75]}
    """

    weights: Weights = None
    rounds: int = ROUNDS
    bags: int = 1
    metric: Metric = "loss"
    seed: int = 0

    def __post_init__(self) -> None:
        given: object = self.weights
        if given is None or given in ("learn", "greedy"):
            return
        if not isinstance(given, (tuple, list)):
            raise FusionError(
                f"weights={given!r} is unknown: use None, 'learn', 'greedy' or a tuple of numbers."
            )
        object.__setattr__(self, "weights", checked_weights(tuple(given)))

    def __call__(
        self, members: Members, data: Any = None, *, allow_in_sample: bool = False
    ) -> keras.Model:
        """Fuse the members into one model.

        Args:
            members: two or more built models with the same inputs and outputs; they are copied,
                never changed. Or what `cross_fit` gives, in the place of members and data.
            data: held-out `(x, y)` or a dataset, for learned weights only. The fused model counts
                as trained on it.
            allow_in_sample: fit even on rows that a member was trained on.

        Returns:
            An uncompiled model of plain Keras layers. Members of weight 0 are left out of it.

        Raises:
            FusionError: when the members do not fit each other or the weights, or learned
                weights are asked for without data, or on rows that a member was trained on.
            DataError: when the data does not fit the members.
        """
        models = deployed(members)
        check_members(models)
        if self.weights is None:
            return compacted(mean_model(models))
        if self._is_fitted:
            evidence = gather(members, data, allow_in_sample)
            fused = _weighted_mean(models, self._fitted(evidence).values)
            record_rows(fused, evidence.digests, "Average")
            return fused
        return _weighted_mean(models, self._given(len(models)) or ())

    def fit(
        self, members: Members, data: Any = None, *, allow_in_sample: bool = False
    ) -> FittedWeights | Selection:
        """Fit weights to held-out data, and say how: by log-loss, or squared error for regression.

        Args:
            members: as for a call.
            data: `(x, y)` arrays or a dataset; `None` with what `cross_fit` gives.
            allow_in_sample: fit even on rows that a member was trained on.

        Raises:
            FusionError: when the members do not fit each other, there is no data, a member was
                trained on some of it, or the weights are given and not fitted.
            DataError: when the data does not fit the members.
        """
        if not self._is_fitted:
            raise FusionError(
                f"Average(weights={self.weights!r}) has nothing to fit: use 'learn' or 'greedy'."
            )
        return self._fitted(gather(members, data, allow_in_sample))

    @property
    def _is_fitted(self) -> bool:
        return self.weights in ("learn", "greedy")

    def _fitted(self, evidence: Evidence) -> FittedWeights | Selection:
        said = evidence.tasks, evidence.said.outputs, evidence.labels
        if self.weights == "learn":
            return fit_weights(*said)
        return select_weights(
            *said, rounds=self.rounds, bags=self.bags, metric=self.metric, seed=self.seed
        )

    def combiner(self, evidence: Evidence) -> Combiner:
        """How the average combines what members say, fitted to evidence where it is learned."""
        if self._is_fitted:
            return WeightedMean(self._fitted(evidence).values)
        count = len(evidence.said.outputs)
        return WeightedMean(self._given(count) or (1 / count,) * count)

    @property
    def complexity(self) -> int:
        """Equal and given weights are simpler than learned ones."""
        return 2 if self._is_fitted else 1

    def _given(self, count: int) -> tuple[float, ...] | None:
        if not isinstance(self.weights, tuple):
            return None
        if len(self.weights) != count:
            raise FusionError(
                f"{len(self.weights)} weights are given for {count} members: give one for each."
            )
        return tuple(float(weight) for weight in self.weights)

    def to_dict(self) -> dict[str, Any]:
        """The arguments, JSON-ready."""
        weights = list(self.weights) if isinstance(self.weights, tuple) else self.weights
        selection = {
            "rounds": self.rounds,
            "bags": self.bags,
            "metric": self.metric,
            "seed": self.seed,
        }
        return {"weights": weights, **(selection if weights == "greedy" else {})}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Average:
        """The inverse of `to_dict`."""
        weights = record["weights"]
        given = tuple(weights) if isinstance(weights, list) else weights
        return cls(**{**record, "weights": given})


def _weighted_mean(members: Sequence[keras.Model], weights: Sequence[float]) -> keras.Model:
    used = [(m, w) for m, w in zip(members, weights, strict=True) if w > 0]
    inputs, outputs = side_by_side([member for member, _ in used])
    said = Said(tuple(tuple(parts) for parts in outputs))
    means = WeightedMean(tuple(weight for _, weight in used)).connect(said)
    return compacted(keras.Model(inputs, read_outputs(members[0]).pack(means), name="average"))
