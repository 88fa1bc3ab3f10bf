"""What a report shows besides the record of a run: values that are made once, at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from saikei.runs.explained import Attention
from saikei.runs.graph_diff import GraphDiff


@dataclass(frozen=True)
class Point:
    """A structure on the predicted front of a library.

    Args:
        costs: Its predicted costs by name.
        loss: The divergence from the original that is predicted for it.
        changes: What is changed, one text for each layer or block.
    """

    costs: Mapping[str, float]
    loss: float
    changes: tuple[str, ...]


@dataclass(frozen=True)
class PredictedFront:
    """The structures of the least predicted loss for each cost, from the library of a run.

    Args:
        unit: Unit of the losses.
        original: Costs of the original by name.
        points: For each cost that is saved, structures, cheapest first.
    """

    unit: str
    original: Mapping[str, float]
    points: Mapping[str, tuple[Point, ...]]


@dataclass(frozen=True)
class ClassRow:
    """One class of the validation data.

    Args:
        name: Its name, or its number.
        samples: Number of its samples.
        before: Share of them that the original predicts right.
        after: Share of them that the shipped model predicts right.
        confused: The class that the shipped model predicts most often instead; empty if none.
    """

    name: str
    samples: int
    before: float
    after: float
    confused: str


@dataclass(frozen=True)
class Flip:
    """A sample that the original predicts right and the shipped model wrong.

    Args:
        row: Its row in the validation data.
        label: Its class.
        predicted: What the shipped model predicts.
        confidence: The probability that the shipped model gives to that.
        picture: The sample as a PNG in a `data:` address; empty if it is no image.
        text: The sample as text; empty if it is an image.
    """

    row: int
    label: str
    predicted: str
    confidence: float
    picture: str
    text: str


@dataclass(frozen=True)
class Calibration:
    """How often a model is right where it is confident.

    Args:
        error: Expected calibration error, from ten bins: the mean difference between confidence
            and share of right predictions.
        bins: For each bin with samples, mean confidence, share of right predictions, and number of
            samples.
    """

    error: float
    bins: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True)
class Outcome:
    """Which samples gain and lose by the shipped model, on validation.

    Args:
        samples: Number of samples.
        lost: Number that the original predicts right and the shipped model wrong.
        won: Number that the original predicts wrong and the shipped model right.
        agree: Number for which both predict the same class.
        classes: The classes, the one that loses most first.
        flips: Some of those that are lost, the most confident first.
        before: Calibration of the original.
        after: Calibration of the shipped model.
    """

    samples: int
    lost: int
    won: int
    agree: int
    classes: tuple[ClassRow, ...]
    flips: tuple[Flip, ...]
    before: Calibration
    after: Calibration


@dataclass(frozen=True)
class MemberRow:
    """A member of a shipped model that is fused.

    Args:
        name: Its name.
        weight: Its weight; `None` if the fusion has none.
        metric: Its own metric on validation.
        worth: Metric of the average of all members minus that without this one, all with their
            weights; `None` if the fusion is no average.
        agreement: For each member, the share of samples for which both predict the same class.
        share: Share of the rows that it sees in a cascade; `None` elsewhere.
    """

    name: str
    weight: float | None
    metric: float
    worth: float | None
    agreement: tuple[float, ...]
    share: float | None


@dataclass(frozen=True)
class SiteCurve:
    """What the options of one layer or block of the original lose, each applied alone.

    Args:
        site: The layer or block, such as `"channels:conv2"`.
        method: The method of the options.
        points: For each option the share of the cost that it saves and its divergence from the
            original, cheapest last.
        changes: What each option changes, as text.
    """

    site: str
    method: str
    points: tuple[tuple[float, float], ...]
    changes: tuple[str, ...]


@dataclass(frozen=True)
class Sensitivity:
    """The curves of all layers and blocks of one original.

    Args:
        model: Its name.
        cost: Name of the cost that is saved.
        unit: Unit of the divergences.
        curves: The curves, in the order of the model.
    """

    model: str
    cost: str
    unit: str
    curves: tuple[SiteCurve, ...]


@dataclass(frozen=True)
class Timed:
    """The latency of a model or an exported file.

    Args:
        name: Its name, with the runtime where it is not Keras.
        milliseconds: For each number of samples in a batch, the median time in milliseconds; empty
            if it could not be measured.
        exported: Whether it is a file that was exported for the report.
        note: Size of the file, or why there are no times; empty for a model.
    """

    name: str
    milliseconds: tuple[tuple[float, float], ...]
    exported: bool = False
    note: str = ""


@dataclass(frozen=True)
class Details:
    """What a report shows besides the record of a run.

    Args:
        graphs: The original and each network of the shipped model, laid over each other.
        fronts: The predicted front of each given model with a library, by its name.
        outcome: Who gains and who loses; `None` if the task is no classification of one output.
        members: The members of a fused model; empty for a single network.
        classes: Names of the classes, in the order of their numbers; empty if they are unknown.
        sensitivity: What the options of each layer or block of the original lose; `None` for a
            run without a library.
        times: Latencies of the original, the shipped model and its files; empty if none were
            measured.
        machine: The processor that they were measured on.
        attention: What the shipped model looks at beside the original; `None` if that was not
            computed.
    """

    graphs: tuple[GraphDiff, ...] = ()
    fronts: Mapping[str, PredictedFront] = field(default_factory=dict)
    outcome: Outcome | None = None
    members: tuple[MemberRow, ...] = ()
    classes: tuple[str, ...] = ()
    sensitivity: Sensitivity | None = None
    times: tuple[Timed, ...] = ()
    machine: str = ""
    attention: Attention | None = None
