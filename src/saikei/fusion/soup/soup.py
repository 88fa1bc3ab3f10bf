"""`Soup`: one network whose weights are merged from those of several."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import methodcaller
from pathlib import Path
from typing import Any, Literal

import keras

from saikei.data import gathered
from saikei.errors import FusionError
from saikei.fusion.agreement import check_agreement
from saikei.fusion.base import DataNeed, Fusion, only_models
from saikei.fusion.members import AnyMembers, Members
from saikei.fusion.soup.architecture import (
    same_architecture,
    tensors,
    unmerged_weights,
)
from saikei.fusion.soup.merge_members import PreparedMembers, SoupFit, merge_members
from saikei.fusion.soup.scorer import WeightScorer, has_statistics
from saikei.graph import Graph, read
from saikei.graph.compiling import uncompiled
from saikei.graph.finite import check_finite_weights
from saikei.limits import POINTS, check_whole
from saikei.merging.methods import Fisher, Greedy, Merge
from saikei.merging.names import Method, find_method, method_from_dict
from saikei.modelfile import load_model
from saikei.training.digests import digest_data
from saikei.training.provenance import check_held_out, inherit_rows, record_rows


@dataclass(frozen=True)
class Soup(Fusion):
    """One network with merged weights: as cheap as a single member.

    Members are copies of one architecture with other weights: fine-tuned from one network,
    checkpoints of one training, or aligned by the symmetry of their channels. Before they are
    merged, the loss on the line between them is measured on held-out data: where it is higher
    there (a loss barrier), their mean would be worse than either, and the merge is refused.

    Args:
        method: `"uniform"`, `"greedy"`, `"fisher"`, `"slerp"`, `"ema"`, `"task_arithmetic"`,
            `"ties"`, `"dare"`, `"model_stock"`, or a value such as `Ties(density=0.3)`.
        base: The model that the members were fine-tuned from, for the last four methods: a model,
            or the path of a `.keras` file.
        align: Whether the members' channels are put in one order first; `"auto"` does it where
            there is a loss barrier without it.
        check: Whether the loss between members is measured; without it, no data is needed.
        recalibrate: Whether the moving statistics of BatchNormalization are measured anew on the
            data; `False` averages them.
        points: How many points are measured on each line between members, both ends included.

    Raises:
        FusionError: When an argument is unknown, or a base is missing or not needed.

    Example:
        >>> Soup("uniform", check=False).to_dict()["method"]
        {'method': 'Linear', 'weights': None}
    """

    method: Method | str = field(
        default="uniform",
        metadata={"to_json": methodcaller("to_dict"), "from_json": method_from_dict},
    )
    base: Any = field(default=None, metadata={"json": "give the path of its .keras file"})
    align: bool | Literal["auto"] = "auto"
    check: bool = True
    recalibrate: bool = True
    points: int = 7

    def check_arguments(self) -> None:
        """Refuse arguments that are out of range."""
        method = find_method(self.method)
        object.__setattr__(self, "method", method)
        align: object = self.align
        if not (isinstance(align, bool) or align == "auto"):
            raise FusionError(f"align={self.align!r} is unknown: use True, False or 'auto'.")
        check_whole("points", self.points, 3, POINTS)
        _check_base(method, self.base)

    def fuse(
        self, members: AnyMembers, data: Any = None, *, allow_in_sample: bool = False
    ) -> SoupFit:
        """Merge the members, and report what was measured.

        Args:
            members: Two or more built models of one architecture; they are not changed.
            data: Held-out `(x, y)` or a dataset.
            allow_in_sample: Measure even on rows that a member was trained on.

        Raises:
            FusionError: When the members differ in more than their weights, there is a loss
                barrier between them, data is missing, or a member was trained on some of it.
            DataError: When the data does not fit the members.
        """
        given = only_models(self, members)
        base = load_model(self.base) if isinstance(self.base, (str, Path)) else self.base
        if base is not None:
            check_finite_weights("The base", read(base), FusionError)
        prepared = self._prepared(given, base, data, allow_in_sample)
        points = self.points if self.check else 0
        made = merge_members(prepared, find_method(self.method), self.align, points)
        inherit_rows(made.model, [*given.models, *([base] if base is not None else [])])
        if isinstance(self.method, (Greedy, Fisher)):
            record_rows(made.model, digest_data(prepared.data), "Soup")
        return made

    def _prepared(
        self, given: Members, base: keras.Model | None, data: Any, allow_in_sample: bool
    ) -> PreparedMembers:
        """The members' weights, checked, and their losses where there is data."""
        graphs = same_architecture(given, base)
        numbers = [tensors(graph, graphs[0]) for graph in graphs]
        kept = unmerged_weights(graphs[0], numbers)
        if isinstance(self.method, Merge):
            self.method.check_count(len(given))
        self._check_data(data, graphs[0])
        root = numbers.pop() if base is not None else None
        held, scorer, losses = None, None, []
        if data is not None:
            held = gathered(data).parts
            check_held_out(given.models, held, allow_in_sample)
            scorer = WeightScorer(graphs[0], given.models[0], held, self.recalibrate)
            predictions = scorer.own_outputs(numbers)
            labelled = scorer.labelled
            check_agreement(given, labelled.tasks, labelled.labels, predictions, held)
            losses = [labelled.loss(outputs) for outputs in predictions]
        names = [member.name for member in given.models]
        graph = graphs[0] if given.compiled is not None else uncompiled(graphs[0])
        return PreparedMembers(graph, names, numbers, root, kept, scorer, held, losses)

    def _check_data(self, data: Any, graph: Graph) -> None:
        if data is not None:
            return
        if isinstance(self.method, (Greedy, Fisher)):
            raise FusionError(
                f"The {type(self.method).__name__} soup is fitted to held-out data: call it with "
                "(members, (x, y))."
            )
        if self.check:
            raise FusionError(
                "Whether the members can be merged is measured on held-out data: call it with "
                "(members, (x, y)), or skip this check with Soup(check=False)."
            )
        if self.recalibrate and has_statistics(graph):
            raise FusionError(
                "The moving statistics of BatchNormalization have to be measured anew on data: "
                "call it with (members, (x, y)), or average them with Soup(recalibrate=False)."
            )

    @property
    def data(self) -> DataNeed:
        """Held-out data, unless nothing is measured."""
        measures = self.check or isinstance(self.method, (Greedy, Fisher))
        return "held_out" if measures else "none"

    @property
    def complexity(self) -> int:
        """A fixed merge is as simple as a mean; a greedy one has a number for each member."""
        return {Greedy: 2, Fisher: 4}.get(type(self.method), 1)


def _check_base(method: Method, base: object) -> None:
    needs = isinstance(method, Merge) and method.needs_base
    name = type(method).__name__
    if needs and base is None:
        raise FusionError(
            f"{name} merges differences to what the members were fine-tuned from: give base=, a "
            "model or the path of its .keras file."
        )
    if base is not None and not needs:
        raise FusionError(f"{name} needs no base: leave it out, or use 'ties' or 'model_stock'.")
    if base is not None and not isinstance(base, (str, Path, keras.Model)):
        raise FusionError(
            f"base={base!r:.60} is no model: give a keras.Model or the path of a .keras file."
        )
