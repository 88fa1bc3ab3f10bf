"""What a fusion is: a frozen value that, called with members, gives one model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, Protocol, Self, TypeAlias, TypeVar

import keras

from saikei.arguments import checked
from saikei.batches import Array
from saikei.codec import Jsonable, ToDict
from saikei.errors import FusionError
from saikei.fusion.compact import compacted
from saikei.fusion.evidence import Evidence, MemberOutputs, Part, connect, gather
from saikei.fusion.members import AnyMembers, Members
from saikei.training.provenance import record_rows

DataNeed: TypeAlias = Literal["none", "held_out", "training"]


@dataclass(frozen=True, eq=False)
class Fitted(ToDict, ABC):
    """A fused model and how it was fitted; each fusion adds what is its own.

    Args:
        model: The fused model.
    """

    json_omits: ClassVar[tuple[str, ...]] = ("model",)
    model: keras.Model = field(repr=False)

    @property
    @abstractmethod
    def summary(self) -> str:
        """The fitted numbers in a few words, such as `"weights 0.300, 0.700"`; may be empty."""


class Fusion(Jsonable, ABC):
    """A way to make one model of several. Subclasses are frozen dataclasses."""

    error_class: ClassVar[type[FusionError]] = FusionError

    @checked
    def __call__(
        self, members: AnyMembers, data: Any = None, *, allow_in_sample: bool = False
    ) -> keras.Model:
        """Fuse the members into one model: `fuse(…).model`.

        Args:
            members: The models to fuse; see `fuse`.
            data: The data to fit on, if any is needed; see `fuse`.
            allow_in_sample: Whether rows that a member was trained on are accepted; see `fuse`.

        Returns:
            A Keras model, compiled as the members are where all have the same loss, and the model
            has outputs like theirs.

        Raises:
            FusionError: As `fuse` does.
            DataError: As `fuse` does.
        """
        return self.fuse(members, data, allow_in_sample=allow_in_sample).model

    @abstractmethod
    def fuse(
        self, members: AnyMembers, data: Any = None, *, allow_in_sample: bool = False
    ) -> Fitted:
        """Fuse the members into one model, and report how it was fitted.

        It is not named `fit`, since `saikei.fit` trains a model in place, and this makes a new one.

        Args:
            members: A list of built models; they are copied, never changed. Fusions of outputs
                take what `cross_fit` gives too, instead of members and data.
            data: `(x, y)` arrays or a dataset of the kind that `data` names.
            allow_in_sample: Fit even on rows that a member is known to be trained on. Fusions that
                train on their data always do.

        Raises:
            FusionError: When the members do not fit each other or the fusion, there is no data, or
                a member was trained on some of it.
            DataError: When the data does not fit the members.
        """

    @property
    @abstractmethod
    def data(self) -> DataNeed:
        """The data that the fusion needs.

        `"held_out"`: rows that no member was trained on; `"training"`: rows to train on; `"none"`:
        none, though held-out rows may be given, on which the members are checked.
        """

    @property
    def complexity(self) -> int:
        """How much it fits: of two fusions that are as good, the less complex one is chosen.

        0 is one member, 1 a fixed mean, 2 some numbers for each member, 3 some for each member
        and class, 4 and above more than that.
        """
        return 3


class TrainedFusion(Fusion):
    """A fusion that trains on its data."""

    @abstractmethod
    def fuse(
        self,
        members: AnyMembers,
        data: Any = None,
        validation: Any = None,
        *,
        allow_in_sample: bool = False,
    ) -> Fitted:
        """Train, and report how; see `Fusion.fuse`.

        Args:
            members: A list of built models; they are copied, never changed.
            data: Training data, `(x, y)` or `(x, y, sample_weight)` arrays, or a dataset.
            validation: Data of the same form, by which training is stopped.
            allow_in_sample: Has no effect: what is trained here may see these rows again.

        Raises:
            FusionError: When the members do not fit each other, or there is no data.
            DataError: When the data does not fit the members.
        """


class Head(Protocol):
    """The function that makes one prediction of the members' predictions, fitted."""

    @property
    def summary(self) -> str:
        """The fitted numbers in a few words; may be empty."""
        ...

    def predict(self, predictions: MemberOutputs) -> tuple[Array, ...]:
        """The fused outputs of arrays: one array for each output."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """What was fitted, JSON-ready."""
        ...


class GraphHead(Head, Protocol):
    """A head that Keras layers can be made of."""

    def connect(self, predictions: MemberOutputs, name: str) -> tuple[Any, ...]:
        """The fused outputs in a graph, one symbolic tensor for each; `name` begins layer names."""
        ...


HeadT = TypeVar("HeadT", bound=Head)


@dataclass(frozen=True, eq=False)
class FittedHead(Fitted, Generic[HeadT]):
    """A fused model whose head was fitted to predictions.

    Args:
        model: The fused model.
        head: What the model computes from the members' outputs.
    """

    head: HeadT

    @property
    def summary(self) -> str:
        """The fitted numbers in a few words; may be empty."""
        return self.head.summary

    def to_dict(self) -> dict[str, Any]:
        """What was fitted, JSON-ready."""
        return self.head.to_dict()


class OutputFusion(Fusion, Generic[HeadT]):
    """A fusion that is a function of the members' predictions.

    Because it can be fitted to stored predictions, `nested_score`, `choose` and `explain` run the
    members once, and it can be fitted to the out-of-fold predictions of `cross_fit`. A subclass
    writes how its head is fitted, and how the model is built.
    """

    @property
    def parts(self) -> frozenset[Part]:
        """What the head reads beside the members' outputs: `"features"`, `"inputs"`."""
        return frozenset()

    def ready(self, evidence: Evidence) -> Self:  # noqa: ARG002 - for those that measure members
        """The fusion with facts about the members beside their predictions, such as costs.

        It is the same for all folds, so that it is counted once.

        Args:
            evidence: Labels and predictions of all rows.
        """
        return self

    @abstractmethod
    def fit_head(self, evidence: Evidence) -> HeadT:
        """Fit the head to predictions.

        Args:
            evidence: Labels and predictions; without rows where the fusion needs no data.

        Raises:
            FusionError: When the members do not fit the fusion.
            DataError: When there are too few rows.
        """

    @abstractmethod
    def build(self, members: Members, head: HeadT) -> keras.Model:
        """The members and the head as one model; `connected` does it for a `GraphHead`.

        Args:
            members: The models that the fused model is made of.
            head: The fitted head.
        """

    def fuse(
        self, members: AnyMembers, data: Any = None, *, allow_in_sample: bool = False
    ) -> FittedHead[HeadT]:
        """Fit the head, and build one model of it and the members; see `Fusion.fuse`.

        Args:
            members: Two or more built models with the same inputs and outputs; they are copied,
                never changed. Or what `cross_fit` gives, instead of members and data.
            data: Held-out `(x, y)` arrays or a dataset. A fused model that is fitted to it counts
                as trained on it.
            allow_in_sample: Fit even on rows that a member is known to be trained on.

        Returns:
            The model and its head.

        Raises:
            FusionError: When the members do not fit each other or the fusion, there is no data,
                or a member was trained on some of it.
            DataError: When the data does not fit the members.
        """
        members = Members.of(members)
        evidence = self._evidence(members, data, allow_in_sample)
        head = self.fit_head(evidence)
        model = self.build(members.deployed, head)
        if self.data != "none":
            record_rows(model, evidence.digests, type(self).__name__)
        return FittedHead(model, head)

    def _evidence(self, members: Members, data: Any, allow_in_sample: bool) -> Evidence:
        if self.data != "none":
            return gather(members, data, allow_in_sample, self.parts)
        if data is not None:
            # Nothing is fitted, but data shows whether the members mean the same.
            return gather(members, data, True, self.parts)
        members.check_alike()
        return Evidence.without_rows(members)


def connected(
    members: Members, head: GraphHead, name: str, parts: Collection[Part] = ()
) -> keras.Model:
    """One model of the members side by side and a head on their outputs.

    Args:
        members: Members with equal inputs and outputs.
        head: The fitted head.
        name: The name of the model.
        parts: What the head reads beside the outputs.
    """
    inputs, outputs = connect(members, parts)
    packed = members.outputs[0].pack(head.connect(outputs, name))
    return members.compile(compacted(keras.Model(inputs, packed, name=name)))


def only_models(fusion: Fusion, members: AnyMembers) -> Members:
    """The members of a fusion that cannot be fitted to stored predictions.

    Raises:
        FusionError: When they are predictions from `cross_fit`.
    """
    read = Members.of(members)
    if read.cross_fit is not None:
        raise FusionError(
            f"{type(fusion).__name__} needs models, not the predictions of cross_fit: give members "
            f"and {fusion.data.replace('_', '-')} data."
        )
    return read


def listed(numbers: Iterable[float]) -> str:
    """Numbers with three decimals, for a summary."""
    return ", ".join(f"{number:.3f}" for number in numbers)
