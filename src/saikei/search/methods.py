"""`Methods`: which edits and fusions take part in a search, from plain words."""

from __future__ import annotations

import difflib
import inspect
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saikei.edits import (
    Edit,
    Factorize,
    PruneChannels,
    RemoveLayers,
    ReplaceActivation,
    ReplaceHead,
    ReplaceKernel,
    ReplacePooling,
    Separate,
)
from saikei.errors import InputError

EDITS: Mapping[str, type[Edit]] = {
    kind.method: kind
    for kind in (
        PruneChannels,
        RemoveLayers,
        Factorize,
        Separate,
        ReplaceKernel,
        ReplaceActivation,
        ReplacePooling,
        ReplaceHead,
    )
}
QUANTIZE = "quantize"
# Fusions of stored predictions, which cost no epochs, and one that trains.
FUSIONS = ("average", "greedy", "stack", "cascade", "soup", "multimodal", "boost")
# Only by name: a series spends epochs that gain more in the training of a finalist.
_ON_REQUEST = ("boost",)


@dataclass(frozen=True)
class Methods:
    """The edits and fusions that take part in a search.

    Args:
        edits: Classes of edits, the search's own and the user's.
        fusions: Names of fusions, as in `FUSIONS`.
        quantize: Whether int8 versions take part.
    """

    edits: tuple[type[Edit], ...]
    fusions: tuple[str, ...]
    quantize: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The words for them, in a fixed order."""
        edits = (word_of(kind) for kind in self.edits)
        return (*edits, *([QUANTIZE] if self.quantize else []), *self.fusions)


def methods_named(given: Sequence[str | type[Edit]] | None) -> Methods:
    """The methods of a search.

    Args:
        given: Words such as `"prune"` and `"cascade"`, and classes derived from `Edit`; `None`
            for all of the search's own but `"boost"`, which needs epochs.

    Raises:
        InputError: If a word is unknown, with the nearest one, or nothing is given.
    """
    if given is None:
        usual = tuple(word for word in FUSIONS if word not in _ON_REQUEST)
        return Methods(tuple(EDITS.values()), usual, quantize=True)
    if isinstance(given, (str, bytes)) or not given:
        raise InputError(
            f"methods={reprlib.repr(given)}: give a list of at least one, such as "
            f'["prune", "average"], of {_listed()}.'
        )
    for one in given:
        _check(one)
    own = [one for one in given if not isinstance(one, str)]
    edits = [kind for word, kind in EDITS.items() if word in given]
    return Methods(
        edits=(*edits, *(kind for kind in own if kind not in edits)),
        fusions=tuple(word for word in FUSIONS if word in given),
        quantize=QUANTIZE in given,
    )


def word_of(kind: type[Edit]) -> str:
    """The word for an edit; the name of its class if it has none."""
    return kind.method if kind.method != "" else kind.__name__


def _check(one: object) -> None:
    if isinstance(one, str):
        known = [*EDITS, QUANTIZE, *FUSIONS]
        if one not in known:
            near = difflib.get_close_matches(one, known, n=1, cutoff=0.0)
            raise InputError(
                f"Unknown method {one!r}: did you mean {near[0]!r}? There are {_listed()}."
            )
    elif not (isinstance(one, type) and issubclass(one, Edit) and not inspect.isabstract(one)):
        raise InputError(
            f"methods holds {reprlib.repr(one)}: give words, or classes derived from saikei's Edit."
        )


def _listed() -> str:
    return ", ".join([*EDITS, QUANTIZE, *FUSIONS])
