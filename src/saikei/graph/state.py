"""State that layers keep outside of their weights and config: vocabularies, tables, own numbers.

Keras saves it by `save_assets` and `save_own_variables`, and builds layers whose state needs it
by `build_from_config`. Whoever makes a layer again has to copy it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from saikei.errors import ModelError, in_one_line
from saikei.graph import internals
from saikei.tensors import to_numpy


def keeps_state(layer: Any) -> bool:
    """Whether a layer, or one in it, has state that is neither a weight nor in its config."""
    parts = internals.flattened_layers(layer)
    return any(_is_lookup(part) or _writes_files(part) or _own_format(part) for part in parts)


def fits_no_cut(layer: Any) -> bool:
    """Whether a layer, or one in it, has state that would have to be cut with its weights.

    The form of assets, of numbers besides the variables, and of the build config of a user's own
    layer is unknown.
    """

    def other_numbers(part: Any) -> bool:
        return _own_format(part) and any(place is None for _, place in _stored(part).values())

    return any(
        _writes_files(part) or _own_build(part) or other_numbers(part)
        for part in internals.flattened_layers(layer)
    )


def state_of(layer: Any) -> dict[str, bytes]:
    """The state of a layer and those in it outside of weights and config, by name.

    Raises:
        ModelError: When a layer cannot write its state.
    """
    state: dict[str, bytes] = {}
    for number, part in enumerate(internals.flattened_layers(layer)):
        if not keeps_state(part):
            continue
        found = dict(_kept(part))
        state |= {f"{number}/{key}": value for key, value in found.items()}
    return state


def differing_state(one: Any, other: Any) -> list[str]:
    """The names of state outside of weights and config that differs between two layers.

    Raises:
        ModelError: When a layer cannot write its state.
    """
    if one is other:
        return []
    ours, theirs = state_of(one), state_of(other)
    different = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    return list(dict.fromkeys(key.partition("/")[2] for key in different))


def carry_state(source: Any, target: Any) -> None:
    """Give a built layer the state that another one of its kind has outside of its weights.

    Args:
        source: A built layer or model; it is not changed.
        target: One made from the same config, which has its own weights already; they stay.

    Raises:
        ModelError: With the layer whose state cannot be copied, and the reason.
    """
    parts, twins = internals.flattened_layers(source), internals.flattened_layers(target)
    if source is target or not any(map(keeps_state, parts)):
        return
    if [type(part) for part in parts] != [type(twin) for twin in twins]:
        raise ModelError(
            f"Layer '{source.name}' ({type(source).__name__}) keeps state outside of its weights, "
            "and made again from its config it holds other layers: fix its get_config()."
        )
    for part, twin in zip(parts, twins, strict=True):
        if _is_lookup(part):
            _carry_vocabulary(part, twin)
            continue
        if _own_format(part):
            _carry_numbers(part, twin)
        if _writes_files(part):
            _carry_files(part, twin)


def build_as_saved(source: Any, target: Any) -> None:
    """Build layers of the user's own as Keras does when it loads them: from their build config.

    Raises:
        ModelError: When that fails.
    """
    pairs = zip(
        internals.flattened_layers(source), internals.flattened_layers(target), strict=False
    )
    for part, twin in pairs:
        if not (_own_build(part) and part.built and type(part) is type(twin)) or twin.built:
            continue
        with _named(part, "be built from its get_build_config()", "build_from_config()"):
            record = part.get_build_config()
            if record:
                twin.build_from_config(record)
                twin.built = True


def _is_lookup(part: Any) -> bool:
    return isinstance(part, (keras.layers.StringLookup, keras.layers.IntegerLookup))


def _writes_files(part: Any) -> bool:
    # What a TextVectorization writes is the vocabulary of the lookup in it.
    return hasattr(part, "save_assets") and not isinstance(part, keras.layers.TextVectorization)


def _own_format(part: Any) -> bool:
    """Whether a layer of the user's own reads or writes its variables otherwise than Keras."""
    return _overrides(part, "save_own_variables") or _overrides(part, "load_own_variables")


def _own_build(part: Any) -> bool:
    return _overrides(part, "get_build_config") or _overrides(part, "build_from_config")


def _overrides(part: Any, method: str) -> bool:
    package = getattr(type(part), method).__module__.partition(".")[0]
    return not isinstance(part, keras.Model) and package not in ("keras", "keras_hub")


def _kept(part: Any) -> Iterator[tuple[str, bytes]]:
    if _is_lookup(part):
        yield "vocabulary", repr([str(word) for word in part.get_vocabulary()]).encode()
        weights = _idf_weights(part)
        if weights is not None:
            yield "idf_weights", weights.tobytes()
        return
    if _own_format(part):
        for key, (array, variable) in _stored(part).items():
            if variable is None:
                yield key, f"{array.dtype} {array.shape} ".encode() + array.tobytes()
    if _writes_files(part):
        with tempfile.TemporaryDirectory() as folder:
            _write_files(part, folder)
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    yield path.relative_to(folder).as_posix(), path.read_bytes()


def _idf_weights(lookup: Any) -> Any:
    found = getattr(lookup, "idf_weights_const", None)
    return None if found is None else np.asarray(found)


def _carry_vocabulary(part: Any, twin: Any) -> None:
    """Copy the vocabulary directly: Keras writes a word on a line, and some contain line breaks."""
    if dict(_kept(part)) == dict(_kept(twin)):
        return
    words, weights = part.get_vocabulary(), _idf_weights(part)
    with _named(part, "be given its vocabulary again", "vocabulary"):
        twin.set_vocabulary(words, weights)
    broken = any(word and word.splitlines() != [word] for word in map(str, words))
    if broken or twin.input_vocabulary is not None:
        # In the config too: the words it was made with have been replaced, or contain line breaks,
        # with which a saved file could not be read again.
        special = len(words) - len(part.get_vocabulary(include_special_tokens=False))
        twin.input_vocabulary = words[special:]
        twin.input_idf_weights = None if weights is None else weights[special:].tolist()


def _write_files(part: Any, folder: str) -> None:
    with _named(part, "write its assets", "save_assets()"):
        part.save_assets(folder)


def _carry_files(part: Any, twin: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _write_files(part, folder)
        if not any(Path(folder).iterdir()):
            return
        if not hasattr(twin, "load_assets"):
            raise ModelError(
                f"Layer '{part.name}' ({type(part).__name__}) writes assets and cannot read them: "
                "give its class load_assets(dir_path)."
            )
        with _named(part, "read its assets again", "load_assets()"):
            twin.load_assets(folder)


def _stored(part: Any) -> dict[str, tuple[np.ndarray, int | None]]:
    """The arrays that a layer writes, each with the index of the variable that it is of."""
    store: dict[str, Any] = {}
    with _named(part, "write its variables", "save_own_variables()"):
        part.save_own_variables(store)
    own = list(enumerate(part.variables))
    found: dict[str, tuple[np.ndarray, int | None]] = {}
    for key, value in store.items():
        array = to_numpy(value.value if isinstance(value, keras.Variable) else value)
        alike = [n for n, one in own if np.array_equal(internals.numbers(one), array)]
        same = [n for n, one in own if one is value]
        named = [n for n in alike if key in (str(n), part.variables[n].name)]
        found[key] = array, next(iter((*same, *named, *alike)), None)
    return found


def _carry_numbers(part: Any, twin: Any) -> None:
    """Load the arrays as from a file, but with the twin's own numbers for its variables."""
    own = [np.array(internals.numbers(variable)) for variable in twin.variables]
    store = {
        key: array if place is None else own[place] for key, (array, place) in _stored(part).items()
    }
    with _named(part, "read its variables again", "load_own_variables()"):
        twin.load_own_variables(store)
    for variable, array in zip(twin.variables, own, strict=True):
        if not np.array_equal(internals.numbers(variable), array):
            variable.assign(array)


@contextmanager
def _named(part: Any, what: str, method: str) -> Iterator[None]:
    """Errors in a layer's own methods, as one line that names the layer and the method."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"Layer '{part.name}' ({type(part).__name__}) cannot {what}: {in_one_line(error)}. "
            f"Fix its {method}."
        ) from error
