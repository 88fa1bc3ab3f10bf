"""`Average`: one model that gives the mean, or the median, of its members' outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import keras

from saikei.errors import FusionError
from saikei.fusion.average.arguments import check_axes, checked_given, for_outputs, levels_of
from saikei.fusion.average.class_weights import fit_class_weights
from saikei.fusion.average.greedy import ROUNDS, Metric, Selection, select_weights
from saikei.fusion.average.pool_fit import equal_pool, fit_pool
from saikei.fusion.average.pooling import How, Pool, Space
from saikei.fusion.average.weighted_mean import WeightedMean
from saikei.fusion.average.weights import FittedWeights, fit_weights
from saikei.fusion.base import DataNeed, OutputFusion
from saikei.fusion.compact import compacted
from saikei.fusion.evidence import Evidence, MemberOutputs, connect
from saikei.fusion.logits import with_logits
from saikei.fusion.members import Members, mean_model, side_by_side
from saikei.limits import BAGS, check_seed, check_whole
from saikei.limits import ROUNDS as MOST_ROUNDS
from saikei.scoring.masks import may_mask
from saikei.scoring.task import Task

Weights = tuple[Any, ...] | Literal["learn", "greedy"] | None


@dataclass(frozen=True)
class Average(OutputFusion[WeightedMean | Pool]):
    """The mean of the members' outputs, `Σ wᵢ yᵢ` with `wᵢ ≥ 0` and `Σ wᵢ = 1`, or their median.

    Members that end in softmax or sigmoid are averaged in probability, members that give logits
    in logits, unless a space is named.

    Args:
        weights: `None` for equal ones; one number for each member, or a row of such for each
            class (with several outputs, a list of such tables); or fitted to data that no member
            was trained on: `"learn"` for the best convex ones, with their optimality gap, or
            `"greedy"` for those of greedy selection (see `saikei.fusion.select_weights`).
        rounds: How many members greedy selection takes, with replacement.
        bags: How many greedy selections, each among half of the members, are averaged; 1 selects
            once, among all.
        metric: What greedy selection improves: `"loss"` or `"accuracy"`.
        seed: Seed of the bags.
        space: The space in which outputs after softmax or sigmoid are averaged: `"probability"`,
            or `"logit"`, which is the geometric mean of the probabilities, scaled to sum 1. Other
            outputs are averaged as they are. `None` averages what the members give.
        how: `"mean"`, or `"median"`, which takes no weights; after a softmax it is scaled to
            sum 1.
        per_class: Whether learned weights differ by class (by output for a regression). A mean of
            probabilities under a softmax is then scaled to sum 1, and its weights are a local
            minimum, not worse than the best shared ones; all other fits have a bound on their gap.
        calibrate: Whether the logits of each member are divided by a temperature first, which is
            fitted to the held-out data before the weights. Outputs of a regression stay unscaled.

    Raises:
        FusionError: When weights are negative or do not sum to 1, or the arguments do not fit
            each other.

    Example:
        >>> Average(weights=(0.25, 0.75)).to_dict()
        {'weights': [0.25, 0.75]}
        >>> Average("learn", space="logit", calibrate=True).to_dict()
        {'weights': 'learn', 'space': 'logit', 'calibrate': True}
    """

    json_omits_defaults: ClassVar[bool] = True
    weights: Weights = None
    rounds: int = ROUNDS
    bags: int = 1
    metric: Metric = "loss"
    seed: int = 0
    space: Space | None = None
    how: How = "mean"
    per_class: bool = False
    calibrate: bool = False

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
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

    @property
    def data(self) -> DataNeed:
        """Held-out data, where weights or temperatures are fitted."""
        return "held_out" if self.calibrate or self._learns else "none"

    @property
    def complexity(self) -> int:
        """Equal and given weights are simpler than learned ones, and those than a table."""
        return 1 + (self.data != "none") + (self._learns and self.per_class)

    @property
    def _learns(self) -> bool:
        return self.weights in ("learn", "greedy")

    @property
    def _is_plain(self) -> bool:
        """Whether it is a weighted mean of the members' outputs, in the space that they are in."""
        return self.space is None and not (self.how != "mean" or self.per_class or self.calibrate)

    def fit_head(self, evidence: Evidence) -> WeightedMean | Pool:
        """The weighted mean or the pool, fitted where weights or temperatures are."""
        if self.data == "none":
            return self._given(evidence.members)
        outputs, tasks = evidence.predictions.outputs, evidence.tasks
        if self._is_plain:
            shared = self._shared(tasks, outputs, evidence.labels)
            return WeightedMean(shared.values, shared)
        # Outputs that are averaged as they are can be fitted to any loss; logits and tables cannot.
        logits = self.calibrate or self.per_class or self.space == "logit"
        known = tasks if logits else ()
        activations = evidence.members.activations
        pool = equal_pool(activations, self.space, self.how, len(outputs), known)
        if isinstance(self.weights, tuple):
            widths = [part.shape[-1] for part in outputs[0]]
            pool = pool.weighted(for_outputs(self.weights, len(outputs), widths))
        learned = fit_class_weights if self.per_class else self._shared
        return fit_pool(pool, evidence, self.calibrate, learned if self._learns else None)

    def build(self, members: Members, head: WeightedMean | Pool) -> keras.Model:
        """The members side by side and their mean; those of weight 0 are left out."""
        if self._is_plain and self.weights is None:
            return members.compile(compacted(mean_model(members)))
        return _fused(members, head)

    def _given(self, members: Members) -> WeightedMean | Pool:
        count = len(members)
        given = self.weights if isinstance(self.weights, tuple) else (1 / count,) * count
        each = for_outputs(given, count, members.widths)
        if self._is_plain:
            return WeightedMean(given)
        return equal_pool(members.activations, self.space, self.how, count).weighted(each)

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


def _fused(members: Members, head: WeightedMean | Pool) -> keras.Model:
    """One model of the members whose weight is not 0."""
    indices = head.used
    used, part = members.take(indices), head.of(indices)
    logits = _logits(used) if isinstance(head, Pool) and head.takes_logits else None
    if logits is None or not isinstance(part, Pool):
        inputs, outputs = connect(used)
        pooled = part.connect(outputs, "average")
    else:
        # In one graph with the outputs, so that each member still runs once.
        inputs, both = side_by_side(logits)
        count = len(part.each)
        outputs, before = (
            MemberOutputs(tuple(tuple(parts[half]) for parts in both))
            for half in (slice(None, count), slice(count, None))
        )
        pooled = part.connect(outputs, "average", before)
    packed = members.outputs[0].pack(pooled)
    return members.compile(compacted(keras.Model(inputs, packed, name="average")))


def _logits(members: Members) -> Members | None:
    """Members that give logits too, where outputs may have masks, which operations lose."""
    if not any(may_mask(member) for member in members.models):
        return None
    found = [with_logits(graph, members.activations) for graph in members.graphs]
    known = tuple(one for one in found if one is not None)
    return Members(members.models, known) if len(known) == len(members) else None
