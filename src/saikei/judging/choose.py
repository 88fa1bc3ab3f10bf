"""`choose`: the simplest of the fusions that are as good as the best, down to one member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import keras

from saikei.arguments import checked
from saikei.batches import Array
from saikei.columns import Columns, InColumns
from saikei.errors import FusionError
from saikei.fusion.base import Fusion
from saikei.fusion.best_member import BestMember
from saikei.fusion.members import AnyMembers
from saikei.judging.nested import Nest, NestedScore
from saikei.scoring.score import Score, standard_error


@dataclass(frozen=True)
class Rival:
    """One of the fusions that were compared.

    Args:
        fusion: The fusion that was judged.
        score: Its nested score.
        behind: How much higher its nested loss is than the lowest, nats or squared error.
        error: The standard error of that difference, over the same rows.
        complexity: How complex it is; see `Fusion.complexity`.
    """

    fusion: Fusion
    score: Score
    behind: float
    error: float
    complexity: int

    @property
    def as_good(self) -> bool:
        """Whether it is less than one standard error behind."""
        return self.behind == 0.0 or self.behind < self.error

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; a fusion is named by its class."""
        return {
            "fusion": type(self.fusion).__name__,
            "score": self.score.to_dict(),
            "behind": self.behind,
            "error": self.error,
            "complexity": self.complexity,
        }


@dataclass(frozen=True, eq=False)
class Choice(InColumns):
    """What was chosen, and why.

    Args:
        fusion: The chosen fusion.
        model: The fused model, fitted to all data.
        rivals: All fusions that were compared, ordered by nested loss.
        reason: Why it was chosen, in one sentence.
    """

    fusion: Fusion
    model: keras.Model
    rivals: tuple[Rival, ...]
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the model."""
        return {
            "fusion": type(self.fusion).__name__,
            "rivals": [rival.to_dict() for rival in self.rivals],
            "reason": self.reason,
        }

    def _shown(self) -> tuple[Columns, str]:
        name = self.rivals[0].score.name.replace("_", " ")
        rows = [("fusion", f"nested {name}", "nested loss", "behind", "chosen")]
        for rival in self.rivals:
            score, chosen = rival.score, rival.fusion is self.fusion
            behind = f"{rival.behind:.4f} ± {rival.error:.4f}" if rival.behind else "best"
            rows.append(
                (
                    _shown(rival.fusion),
                    f"{score.value:.4f}",
                    f"{score.loss:.4f}",
                    behind,
                    "yes" if chosen else "",
                )
            )
        return Columns(rows, right=(1, 2, 3)), self.reason


def _shown(fusion: Fusion) -> str:
    """A fusion with the arguments that differ from their defaults."""
    own = [one for one in fields(fusion) if getattr(fusion, one.name) != one.default]  # type: ignore[arg-type]
    given = ", ".join(f"{one.name}={getattr(fusion, one.name)!r}" for one in own)
    return f"{type(fusion).__name__}({given})"


@checked
def choose(
    fusions: Sequence[Fusion],
    members: AnyMembers,
    data: Any = None,
    folds: Any = None,
    *,
    seed: int = 0,
    allow_in_sample: bool = False,
) -> Choice:
    """Choose among fusions by their nested losses, and do no harm.

    Of those that are less than one standard error behind the best (paired, on the same rows), the
    simplest is taken (Breiman et al., "Classification and Regression Trees", 1984). The best
    single member always takes part, as the simplest of all.

    Args:
        fusions: One fusion or more.
        members: The models to fuse, as in `nested_score`.
        data: Held-out data `(x, y)`, as in `nested_score`.
        folds: The number of folds or a scikit-learn splitter, as in `nested_score`.
        seed: Seed of the folds.
        allow_in_sample: Whether rows that a member was trained on are accepted.

    Returns:
        The choice, with a model that is fitted on all the data.

    Raises:
        FusionError: When there is no fusion, or as `nested_score` does.
        DataError: As `nested_score` does.
    """
    if not fusions:
        raise FusionError("There is nothing to choose from: give a list of fusions.")
    every = [BestMember(), *(one for one in fusions if not isinstance(one, BestMember))]
    nest = Nest.of(every, members, data, folds, seed, allow_in_sample)
    nested = [nest.score(one) for one in every]
    lowest = min(range(len(every)), key=lambda index: nested[index].losses.mean())
    rivals = [
        _rival(fusion, one, nested[lowest].losses)
        for fusion, one in zip(every, nested, strict=True)
    ]
    chosen = min(
        (rival for rival in rivals if rival.as_good), key=lambda r: (r.complexity, r.behind)
    )
    return Choice(
        fusion=chosen.fusion,
        model=chosen.fusion(nest.evidence.members, nest.data, allow_in_sample=allow_in_sample),
        rivals=tuple(sorted(rivals, key=lambda rival: rival.behind)),
        reason=_reason(chosen, rivals[lowest]),
    )


def _rival(fusion: Fusion, nested: NestedScore, best: Array) -> Rival:
    difference = nested.losses - best
    error = float(standard_error(difference))
    return Rival(fusion, nested.score, float(difference.mean()), error, fusion.complexity)


def _reason(chosen: Rival, best: Rival) -> str:
    name, loss = type(chosen.fusion).__name__, chosen.score.loss
    if chosen is best:
        return f"{name} has the lowest nested loss, {loss:.4f}, and nothing simpler is as good."
    return (
        f"{name} has a nested loss of {loss:.4f}, less than one standard error "
        f"({chosen.error:.4f}) above the lowest, {best.score.loss:.4f} of "
        f"{type(best.fusion).__name__}, and is simpler."
    )
