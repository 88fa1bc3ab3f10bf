"""Methods are words, the user's own edits are classes, and every one gets an account."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saikei.edits import Factorize, PruneChannels
from saikei.errors import InputError
from saikei.search.accounts import methods_of
from saikei.search.methods import EDITS, FUSIONS, methods_named
from tests.search.made_up import candidate


class Own(PruneChannels):
    """An edit of the user's own."""

    method = ""


def test_words_are_those_of_the_edits_and_all_take_part_by_default() -> None:
    every = methods_named(None)
    assert every.names == (*EDITS, "quantize", *(word for word in FUSIONS if word != "boost"))
    assert all(kind.method == word for word, kind in EDITS.items())


def test_words_and_classes_narrow_the_search() -> None:
    some = methods_named(["cascade", "prune", Own, Factorize])
    assert some.edits == (PruneChannels, Own, Factorize)
    assert some.fusions == ("cascade",)
    assert not some.quantize
    assert some.names == ("prune", "Own", "factorize", "cascade")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["cascades"], "did you mean 'cascade'"),
        (["prune", 3], "methods holds 3"),
        ([dict], "methods holds <class 'dict'>"),
        ("prune", "methods='prune': give a list"),
        ([], r"methods=\[\]: give a list of at least one"),
    ],
)
def test_what_is_no_method_is_refused(given: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        methods_named(given)  # type: ignore[arg-type]


def test_a_candidate_uses_the_methods_of_its_recipe_and_its_members() -> None:
    recipe = {"edits": [{"edit": "DropChannels", "channels": {}}, {"edit": "Factorize"}]}
    cut = candidate("cut", recipe=recipe)
    plain = candidate("plain")
    ensemble = replace(cut, name="ensemble", kind="fused", family="stack", members=("cut", "plain"))
    ensemble = replace(ensemble, recipe=None)
    small = replace(cut, name="small", kind="quantized", family="ensemble", members=("ensemble",))
    by_name = {c.name: c for c in (cut, plain, ensemble, replace(small, recipe=None))}
    assert methods_of(cut, by_name) == {"prune", "factorize"}
    assert methods_of(plain, by_name) == frozenset()
    assert methods_of(ensemble, by_name) == {"stack", "prune", "factorize"}
    assert methods_of(by_name["small"], by_name) == {"quantize", "stack", "prune", "factorize"}
