"""`Average`: one model that says the mean, or the median, of what its members say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras

from saikei.errors import FusionError
from saikei.fusion.averaging.checks import check_axes
from saikei.fusion.averaging.class_weights import fit_class_weights
from saikei.fusion.averaging.given_weights import checked_given, for_outputs, levels_of
from saikei.fusion.averaging.greedy import ROUNDS, Metric, Selection, select_weights
from saikei.fusion.averaging.pool_fit import CalibratedFit, FittedAny, equal_pool, fit_pool
from saikei.fusion.averaging.pooling import How, Pool, Space
from saikei.fusion.averaging.weighted_mean import WeightedMean
from saikei.fusion.averaging.weights import FittedWeights, fit_weights
from saikei.fusion.base import Fusion
from saikei.fusion.compact import compacted
from saikei.fusion.evidence import Combiner, Evidence, Members, Said, deployed, gather
from saikei.fusion.logits import with_logits
from saikei.fusion.members import check_members, mean_model, side_by_side
from saikei.limits import BAGS, check_seed, check_whole
from saikei.limits import ROUNDS as MOST_ROUNDS
from saikei.scoring.masks import may_mask
from saikei.scoring.outputs import read_outputs
from saikei.scoring.task import Task
from saikei.training.provenance import record_rows

Weights = tuple[Any, ...] | Literal["learn", "greedy"] | None


@dataclass(frozen=True)
class Average(Fusion):
    """The mean of the members' outputs, `Σ wᵢ yᵢ` with `wᵢ ≥ 0` and `Σ wᵢ = 1`, or their median.

    Members that end in softmax or sigmoid are averaged in probability, members that give logits
    in logits, unless a space is named.

    Args:
        weights: `None` for equal ones; one number for each member, or a row of such for each
            class (with several outputs, a list of such tables); or fitted to data that no member
            was trained on: `"learn"` for the best convex ones, with their optimality gap, or
            `"greedy"` for those of greedy selection (see `saikei.fusion.select_weights`).
        rounds: of the greedy selection.
        bags: likewise: how many selections among half of the members are averaged.
        metric: likewise: `"loss"` or `"accuracy"`.
        seed: of the bags.
        space: in which outputs after softmax or sigmoid are averaged: `"probability"`, or
            `"logit"`, which is the geometric mean of the probabilities, brought back to sum 1.
            Outputs without them are averaged as they are. `None` takes what the members give.
        how: `"mean"`, or `"median"`, which takes no weights; after a softmax it is brought back
            to sum 1.
        per_class: learn weights for each class (for each output of a regression). A mean of
            probabilities under a softmax is then brought back to sum 1, and its weights are a
            local minimum below the best shared ones; the others are certified.
        calibrate: divide the logits of each member by a temperature first, which is fitted to
            the held-out data before the weights are. Outputs of a regression stay as they are.

    Raises:
        FusionError: when weights are negative or do not sum to 1, or the arguments do not fit
            each other.

    Example:
        >>> Average(weights=(0.25, 0.75)).to_dict()
        {'weights': [0.25, 0.75]}
        >>> Average("learn", space="logit", calibrate=True).to_dict()
        {'weights': 'learn', 'space': 'logit', 'calibrate': True}
    """

    weights: Weights = None
    rounds: int = ROUNDS
    bags: int = 1
    metric: Metric = "loss"
    seed: int = 0
    space: Space | None = None
    how: How = "mean"
    per_class: bool = False
    calibrate: bool = False

    def __post_init__(self) -> None:
        given: object = self.weights
        if isinstance(given, (tuple, list)):
            object.__setattr__(self, "weights", checked_given(given))
            object.__setattr__(self, "per_class", self.per_class or levels_of(given) > 1)
        elif given is not None and given not in ("learn", "greedy"):
            raise FusionError(
                f"weights={given!r} is unknown: use None, 'learn', 'greedy' or a tuple of numbers."
            )
        check_whole("rounds", self.rounds, 1, MOST_ROUNDS)
        check_whole("bags", self.bags, 1, BAGS)
        check_seed(self.seed)
        check_axes(self.weights, self.space, self.how, self.per_class, self.calibrate)

    def __call__(
        self, members: Members, data: Any = None, *, allow_in_sample: bool = False
    ) -> keras.Model:
        """Fuse the members into one model.

        Args:
            members: two or more built models with the same inputs and outputs; they are copied,
                never changed. Or what `cross_fit` gives, in the place of members and data.
            data: held-out `(x, y)` or a dataset. Learned weights and calibration are fitted to it,
                and the fused model counts as trained on it; otherwise it serves to check that
                members have one order of classes and one preparation of inputs.
            allow_in_sample: fit even on rows that a member was trained on.

        Returns:
            An uncompiled model of plain Keras layers. Members of weight 0 are left out of it.

        Raises:
            FusionError: when the members do not fit each other or the weights, or something is to
                be fitted without data, or on rows that a member was trained on.
            DataError: when the data does not fit the members.
        """
        models = deployed(members)
        check_members(models)
        if self.needs_data:
            evidence = gather(members, data, allow_in_sample)
            fused = _fused(models, self._fitted(evidence)[0])
            record_rows(fused, evidence.digests, "Average")
            return fused
        if data is not None:
            # Nothing is fitted, but the data tells members that mean something else.
            gather(members, data, allow_in_sample=True)
        outputs = read_outputs(models[0]).each
        widths = [output.shape[-1] for output in outputs]
        combiner = self._given([output.activation for output in outputs], widths, len(models))
        if self.weights is None and isinstance(combiner, WeightedMean):
            return compacted(mean_model(models))
        return _fused(models, combiner)

    def fit(
        self, members: Members, data: Any = None, *, allow_in_sample: bool = False
    ) -> FittedAny | CalibratedFit:
        """Fit to held-out data, and say how: by log-loss, or squared error for regression.

        Args:
            members: as for a call.
            data: `(x, y)` arrays or a dataset; `None` with what `cross_fit` gives.
            allow_in_sample: fit even on rows that a member was trained on.

        Returns:
            `FittedWeights`, of greedy selection a `Selection`, of weights for each class
            `ClassWeights`; and with calibration a `CalibratedFit`, which holds them.

        Raises:
            FusionError: when the members do not fit each other, there is no data, a member was
                trained on some of it, or nothing is to be fitted.
            DataError: when the data does not fit the members.
        """
        fitted = None
        if self.needs_data:
            _, fitted = self._fitted(gather(members, data, allow_in_sample))
        if fitted is None:
            raise FusionError(
                f"Average(weights={self.weights!r}) has nothing to fit: use 'learn' or 'greedy', "
                "or calibrate=True."
            )
        return fitted

    @property
    def needs_data(self) -> bool:
        """Whether anything is fitted."""
        return self.calibrate or self._learns

    @property
    def complexity(self) -> int:
        """Equal and given weights are simpler than learned ones, and those than a table."""
        return 1 + self.needs_data + (self._learns and self.per_class)

    @property
    def _learns(self) -> bool:
        return self.weights in ("learn", "greedy")

    @property
    def _is_plain(self) -> bool:
        """Whether the weighted mean of what members give is all there is to it."""
        return self.space is None and not (self.how != "mean" or self.per_class or self.calibrate)

    def combiner(self, evidence: Evidence) -> Combiner:
        """How the average combines what members say, fitted to evidence where that is asked."""
        if self.needs_data:
            return self._fitted(evidence)[0]
        outputs = evidence.said.outputs
        widths = [part.shape[-1] for part in outputs[0]]
        return self._given(evidence.activations, widths, len(outputs))

    def _given(
        self, activations: Sequence[str], widths: Sequence[int | None], count: int
    ) -> WeightedMean | Pool:
        given = self.weights if isinstance(self.weights, tuple) else (1 / count,) * count
        each = for_outputs(given, count, widths)
        if self._is_plain:
            return WeightedMean(given)
        return equal_pool(activations, self.space, self.how, count).weighted(each)

    def _fitted(
        self, evidence: Evidence
    ) -> tuple[WeightedMean | Pool, FittedAny | CalibratedFit | None]:
        outputs, tasks = evidence.said.outputs, evidence.tasks
        if self._is_plain:
            shared = self._shared(tasks, outputs, evidence.labels)
            return WeightedMean(shared.values), shared
        # What is pooled as it is said may be fitted to any loss; logits and tables may not.
        logits = self.calibrate or self.per_class or self.space == "logit"
        known = tasks if logits else ()
        pool = equal_pool(evidence.activations, self.space, self.how, len(outputs), known)
        if isinstance(self.weights, tuple):
            widths = [part.shape[-1] for part in outputs[0]]
            pool = pool.weighted(for_outputs(self.weights, len(outputs), widths))
        learned = fit_class_weights if self.per_class else self._shared
        return fit_pool(pool, evidence, self.calibrate, learned if self._learns else None)

    def _shared(
        self, tasks: Sequence[Task], predictions: Sequence[Sequence[Any]], labels: Sequence[Any]
    ) -> FittedWeights | Selection:
        if self.weights == "learn":
            return fit_weights(tasks, predictions, labels)
        return select_weights(
            tasks,
            predictions,
            labels,
            rounds=self.rounds,
            bags=self.bags,
            metric=self.metric,
            seed=self.seed,
        )

    def to_dict(self) -> dict[str, Any]:
        """The arguments, JSON-ready; those that are as they are by default are left out."""
        selection = {
            "rounds": self.rounds,
            "bags": self.bags,
            "metric": self.metric,
            "seed": self.seed,
        }
        axes = {
            name: getattr(self, name)
            for name in ("space", "how", "per_class", "calibrate")
            if getattr(self, name) != getattr(Average, name)
        }
        weights = _lists(self.weights)
        return {"weights": weights, **(selection if weights == "greedy" else {}), **axes}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Average:
        """The inverse of `to_dict`."""
        return cls(**record)


def _lists(weights: Any) -> Any:
    return [_lists(one) for one in weights] if isinstance(weights, tuple) else weights


def _fused(members: Sequence[keras.Model], combiner: WeightedMean | Pool) -> keras.Model:
    """One model of the members that count."""
    places = combiner.used
    used, part = [members[place] for place in places], combiner.of(places)
    logits = _logits(used) if isinstance(combiner, Pool) and combiner.takes_logits else None
    if logits is None or isinstance(part, WeightedMean):
        inputs, outputs = side_by_side(used)
        pooled = part.connect(_said(outputs), "average")
    else:
        # In one graph with the outputs, so that each member still runs once.
        inputs, both = side_by_side(logits)
        said, before = (_said([parts[half] for parts in both]) for half in _halves(len(part.each)))
        pooled = part.connect(said, "average", before)
    return compacted(keras.Model(inputs, read_outputs(members[0]).pack(pooled), name="average"))


def _said(outputs: Sequence[Sequence[Any]]) -> Said:
    return Said(tuple(tuple(parts) for parts in outputs))


def _halves(count: int) -> tuple[slice, slice]:
    return slice(None, count), slice(count, None)


def _logits(members: Sequence[keras.Model]) -> list[keras.Model] | None:
    """Members that give their logits too, where their outputs may have masks to be kept."""
    if not any(may_mask(member) for member in members):
        return None
    found = [with_logits(member) for member in members]
    known = [one for one in found if one is not None]
    return known if len(known) == len(members) else None
