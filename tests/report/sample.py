"""A finished run made by hand: every kind of candidate, with a test set."""

from __future__ import annotations

import math
from typing import Any

from scipy.stats import binomtest

from saikei.runs.candidate import Candidate, Cost, Kind, LayerChange, Training
from saikei.runs.front import pareto_front
from saikei.runs.record import (
    Comparison,
    Decision,
    EffortRecord,
    FinalTest,
    LibraryRecord,
    MethodRecord,
    Run,
    RunSettings,
)
from saikei.scoring.score import Difference, Score


def accuracy(correct: int, n: int = 360) -> Score:
    found = binomtest(correct, n).proportion_ci(method="wilson")
    return Score("accuracy", correct / n, found.low, found.high, n, True, 0.1 + 1 - correct / n)


def cost(share: float) -> Cost:
    return Cost(
        params=int(55_000 * share),
        macs=int(690_000 * share),
        bytes=4 * int(55_000 * share),
        memory=int(24_576 * math.sqrt(share)),
        latency=3.1 * (0.4 + 0.6 * share),
        batch_size=32,
    )


LAYERS = (
    LayerChange("conv2d", "Conv2D", 32, 15, None),
    LayerChange("conv2d_1", "Conv2D", 64, 33, None),
    LayerChange("dense", "Dense", 64, 21, None),
    LayerChange("dense_1", "Dense", 10, 10, "a model output"),
)


def training(teacher: str | None, best: float) -> Training:
    values = tuple(best - 0.4 * math.exp(-epoch / 4) for epoch in range(20))
    return Training(
        teacher=teacher,
        epochs=20,
        total=20,
        learning_rate=0.001,
        temperature=4.0 if teacher else None,
        alpha=0.3 if teacher else 1.0,
        seconds=6.4,
        curves={
            "accuracy": tuple(min(1.0, v + 0.01) for v in values),
            "val_accuracy": values,
            "loss": tuple(1.0 - v for v in values),
            "val_loss": tuple(1.05 - v for v in values),
        },
    )


def trained(name: str, kind: Kind, share: float, correct: int, before: int) -> Candidate:
    teacher = None if "labels" in name else "original"
    recipe: dict[str, Any] = {
        "edits": [{"edit": "PruneChannels", "keep": {"budget": {"macs": int(690_000 * share)}}}]
    }
    return Candidate(
        name=name,
        kind=kind,
        family="fresh" if kind == "fresh" else "knapsack",
        parent="original",
        plan={"name": name, "seed": 7, "settings": {"batch_size": 32}},
        recipe=recipe,
        members=(),
        weights=(),
        fits=True,
        cost=cost(share),
        before=accuracy(before),
        validation=accuracy(correct),
        training=training(teacher, correct / 360),
        layers=LAYERS,
    )


def sample_run(hostile: str = "") -> Run:
    """A run over one original; `hostile` is put wherever text from outside can stand."""
    baseline = Candidate(
        name="original",
        kind="original",
        family="given",
        parent=None,
        plan={},
        recipe=None,
        members=(),
        weights=(),
        fits=False,
        cost=cost(1.0),
        before=None,
        validation=accuracy(356),
        training=None,
        layers=(),
    )
    if hostile:
        layers = (LayerChange(hostile, hostile, 4, 4, hostile),)
        baseline = _with(baseline, layers=layers, kind="given")
    average = _with(
        baseline,
        name="average-1",
        kind="fused",
        family="average",
        plan={"fusion": "Average", "complexity": 1},
        members=("a2-pruned", "a2-fresh"),
        weights=(0.5, 0.5),
        fits=True,
        cost=cost(0.245),
        validation=accuracy(354),
        layers=(),
    )
    candidates = (
        baseline,
        trained("a1-pruned", "kept", 0.25, 354, 201),
        trained("a1-fresh", "fresh", 0.25, 352, 34),
        trained("a1-labels", "kept", 0.25, 349, 201),
        trained("a2-pruned", "kept", 0.122, 351, 150),
        trained("a2-fresh", "fresh", 0.122, 348, 41),
        trained("a3-pruned", "kept", 0.08, 341, 90),
        trained("a3-fresh", "fresh", 0.08, 343, 30),
        average,
    )
    front = tuple(c.name for c in pareto_front(candidates, "macs"))
    return Run(
        task="multiclass",
        baseline="original",
        chosen="a1-pruned",
        candidates=candidates,
        front=front,
        cost_axis="macs",
        comparisons=(
            Comparison(
                "shipped or original",
                "a1-pruned",
                "original",
                Difference(-2 / 360, -0.0132, 0.0021),
                "no clear difference",
            ),
            Comparison(
                "kept or fresh weights",
                "a1-pruned",
                "a1-fresh",
                Difference(2 / 360, -0.004, 0.0151),
                f"no clear difference {hostile}",
            ),
            Comparison(
                "distilled or labels alone",
                "a1-pruned",
                "a1-labels",
                Difference(5 / 360, 0.002, 0.026),
                "distillation: better",
            ),
            Comparison(
                "fused or best single",
                "average-1",
                "a1-pruned",
                Difference(0.0, -0.008, 0.008),
                "no clear difference",
            ),
        ),
        decisions=(
            Decision("teacher", "original", "It is the only original."),
            Decision(
                "what to ship",
                "a1-pruned",
                "a1-pruned is best on validation; average-1 is within one standard error, "
                f"but is an average of 2. {hostile}",
            ),
        ),
        methods=(
            MethodRecord("prune", 24, 6, True, f"a1-pruned uses it. {hostile}"),
            MethodRecord("average", 8, 1, False, "Its best candidate average-1 has 98.33 %."),
        ),
        effort=(
            EffortRecord("knapsack", 1, 4, 4),
            EffortRecord("knapsack", 9, 1, 8),
            EffortRecord(f"fresh{hostile}", 1, 2, 2),
        ),
        library={
            "original": LibraryRecord(24, 360, "nats", 3.2, ((0.01, 0.012), (0.2, 0.3)), None)
        },
        test=FinalTest(accuracy(355), accuracy(353), Difference(-2 / 360, -0.017, 0.006)),
        settings=RunSettings(
            {"macs": 0.25, "count": "mean"}, {"macs": 172_500.0}, ("prune", "average"), 45, 128, 0
        ),
        samples={"train": 1078, "validation": 360, "test": 360},
        fingerprint={"model": "ab" * 16, "data": "cd" * 16, "settings": "ef" * 16},
        versions={"saikei": "0.1.0", "keras": "3.15.1", "python": "3.11.7"},
        started="2026-01-05T10:00:00",
        seconds=83.2,
    )


def _with(candidate: Candidate, **changes: Any) -> Candidate:
    from dataclasses import replace

    return replace(candidate, **changes)
