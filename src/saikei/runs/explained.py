"""The explanation of one model, or of two side by side, as values that a report can show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from saikei.codec import ToDict
from saikei.columns import Columns, InColumns
from saikei.runs import numbers
from saikei.scoring.score import Score


@dataclass(frozen=True)
class GroupPart:
    """A channel group of the model that is explained.

    Args:
        name: The layer that makes the channels first.
        layers: All layers that carry them.
        channels: The number of channels.
        carrying: How many of the channels have 90 % of the importance of all channels together.
        curve: Pairs of a share of the channels and the increase of the metric when as many are
            removed, the least important first, without any training; empty for a pinned group.
        pinned: Why none of the channels can be removed; `None` if some can.
    """

    name: str
    layers: tuple[str, ...]
    channels: int
    carrying: int
    curve: tuple[tuple[float, float], ...]
    pinned: str | None

    @property
    def importance(self) -> float | None:
        """The increase of the metric without half of the channels; `None` for a pinned group."""
        found = dict(self.curve)
        return None if not found else found[min(found, key=lambda share: abs(share - 0.5))]


@dataclass(frozen=True)
class Agreement:
    """How much the maps of two models agree on the same samples.

    Args:
        method: `"gradient × input"` or `"Grad-CAM"`.
        value: The correlation of the two maps of a sample, the mean over samples.
        chance: The same between the maps of different samples, for comparison.
    """

    method: str
    value: float
    chance: float


@dataclass(frozen=True)
class Feature:
    """A number among the inputs, and how much each model uses it.

    Args:
        name: The input, with the position of the number in it.
        shares: For each model the mean absolute gradient times input, as a share of that of all
            numbers of the inputs.
    """

    name: str
    shares: tuple[float, ...]


@dataclass(frozen=True)
class SampleMaps:
    """An image, and what each model looks at in it.

    Args:
        row: Its position among the samples of the data that were used.
        about: The class that the maps are about; empty if the task has no classes.
        label: Its true class; empty if it is unknown.
        picture: The image as a PNG in a `data:` address.
        gradients: For each model the image under its map of gradient times input.
        cams: For each model the image under its Grad-CAM map; empty if there is none.
    """

    row: int
    about: str
    label: str
    picture: str
    gradients: tuple[str, ...]
    cams: tuple[str, ...]


@dataclass(frozen=True)
class Attention:
    """What one or two models look at in samples.

    Args:
        models: The name of each model.
        agreement: How much the maps of the two models agree; empty for one model.
        features: The numbers of inputs that are no images, the most used first.
        samples: Some of the images.
    """

    models: tuple[str, ...]
    agreement: tuple[Agreement, ...] = ()
    features: tuple[Feature, ...] = ()
    samples: tuple[SampleMaps, ...] = ()

    def sentences(self) -> tuple[str, ...]:
        """How much the two models look at the same, one sentence for each method."""
        return tuple(
            f"{one.method}: the maps of the two models correlate by {_number(one.value)} on the "
            f"same sample, and by {_number(one.chance)} on different ones."
            for one in self.agreement
        )

    def feature_rows(self) -> Iterator[list[str]]:
        """The table of features, its heading first."""
        yield ["input", *self.models]
        for one in self.features:
            yield [one.name, *(f"{100 * share:.1f} %" for share in one.shares)]


@dataclass(frozen=True)
class ModelExplanation(ToDict, InColumns):
    """What the parts of a model contribute, and what it looks at; printed, it is tables.

    Args:
        models: The name of the model, behind that of the original if there is one.
        scores: The score of each of the models; with the predictions of the first as labels if
            the data has none.
        metric: What the curves of the groups are in: `"log-loss"` (nats), `"squared error"`,
            `"loss"` (their sum over several outputs) or `"error rate"`.
        criterion: The criterion that the channels of a group are ranked by.
        rows: How many rows the curves were measured on.
        groups: The channel groups, in the order of the model.
        attention: What the models look at.
    """

    models: tuple[str, ...]
    scores: tuple[Score, ...]
    metric: str
    criterion: str
    rows: int
    groups: tuple[GroupPart, ...]
    attention: Attention

    def _shown(self) -> Sequence[str | Columns]:
        looks = self.attention
        return [
            "\n".join(f"{n}: {s}" for n, s in zip(self.models, self.scores, strict=True)),
            self.groups_lead(),
            Columns(list(self.group_rows()), right=range(1, 4 + len(self.shares()))),
            *([Columns(list(looks.feature_rows()), right=(1, 2))] if looks.features else []),
            *looks.sentences(),
        ]

    def shares(self) -> tuple[float, ...]:
        """The shares of channels for which there is an increase of the metric."""
        return tuple(sorted({share for group in self.groups for share, _ in group.curve}))

    def groups_lead(self) -> str:
        """What the table of groups shows, in two sentences."""
        return (
            f"Increase of the {self.metric} on {self.rows:,} rows when a share of a group's "
            f"channels is removed, the least important by '{self.criterion}' first, without any "
            "training. 'carry 90 %' is the number of channels that have 90 % of the importance."
        )

    def group_rows(self) -> Iterator[list[str]]:
        """The table of groups, its heading first."""
        shares = self.shares()
        yield [
            "group",
            "channels",
            "carry 90 %",
            *(f"{100 * s:.0f} % removed" for s in shares),
            "layers",
        ]
        for group in self.groups:
            curve = dict(group.curve)
            cells = ["–" if s not in curve else numbers.signed("loss", curve[s]) for s in shares]
            layers = group.pinned or ", ".join(group.layers)
            yield [group.name, str(group.channels), str(group.carrying), *cells, layers]


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", numbers.MINUS)
