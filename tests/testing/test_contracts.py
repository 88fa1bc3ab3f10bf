"""The contracts of edits and fusions are broken by what breaks them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import pytest
from keras import layers as L

from saikei import Average, ReplaceActivation
from saikei.edits import Edit
from saikei.graph import Graph
from saikei.testing import assert_is_edit, assert_is_fusion


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    hidden = L.Dense(6, activation="relu", name="hidden")
    return keras.Sequential([keras.Input((4,)), hidden, L.Dense(3)])


@dataclass(frozen=True)
class Swap(Edit):
    exact: ClassVar[bool] = False
    new: str = "elu"

    def apply(self, graph: Graph, data: Any = None) -> Graph:
        return ReplaceActivation("relu", self.new).apply(graph, data)


@dataclass(frozen=True)
class NotExact(Swap):
    exact: ClassVar[bool] = True


@dataclass(frozen=True)
class InPlace(Swap):
    def __call__(self, model: keras.Model, data: Any = None, input_shape: Any = None) -> Any:
        edited = super().__call__(model, data, input_shape)
        model.layers[0].kernel.assign(model.layers[0].kernel * 0)
        return edited


@dataclass(frozen=True)
class Forgetful(Swap):
    def to_dict(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(
    ("edit", "broken"),
    [
        (NotExact(), "NotExact is exact, but changed the function"),
        (InPlace(), "InPlace changed the model"),
        (Forgetful("tanh"), "Forgetful comes back from JSON"),
    ],
)
def test_an_edit_that_breaks_a_promise_is_named_with_it(edit: Edit, broken: str) -> None:
    assert_is_edit(Swap(), network(), alone=False)
    with pytest.raises(AssertionError, match=broken):
        assert_is_edit(edit, network(), alone=False)


def test_a_fusion_that_changes_a_member_is_named() -> None:
    class InPlaceToo(Average):
        def fuse(self, members: Any, data: Any = None, **how: Any) -> Any:
            members[0].layers[0].kernel.assign(members[0].layers[0].kernel * 0)
            return super().fuse(members, data, **how)

    with pytest.raises(AssertionError, match="InPlaceToo changed a member"):
        assert_is_fusion(InPlaceToo(), [network(), network()], alone=False)
