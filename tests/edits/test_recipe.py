"""What a recipe promises follows from its edits."""

from __future__ import annotations

from saikei import FoldBatchNorm, PruneChannels, Recipe, RemoveNoOps


def test_a_recipe_is_exact_when_all_its_edits_are() -> None:
    assert Recipe([FoldBatchNorm(), RemoveNoOps()]).exact
    assert not Recipe([FoldBatchNorm(), PruneChannels(0.5)]).exact
