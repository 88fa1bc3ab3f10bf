"""Which training settings are tried: ranges, choices and fixed values."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from saikei.errors import InputError
from saikei.limits import is_number
from saikei.search.race.plan import Weights
from saikei.training.parts import TrainingSettings

# These values distilled best in trials, see docs/decisions.md. The rate is for weights that are
# carried over and lose nothing; damaged ones get up to seven times as much, fresh ones five times.
LEARNING_RATE = 6e-4
FRESH_TO_CARRIED = 5
MOST_RATE = 1e-2
TEMPERATURE = 2.0
ALPHA = 0.5
# The most that labels weigh.
_MOST_ALPHA = 0.9
MIXUP = 0.2

NAMES = tuple(one.name for one in fields(TrainingSettings))
# SGD's rates are larger than Adam's by about so much.
_SGD_TO_ADAM = 30
_LOGARITHMIC = ("learning_rate", "weight_decay", "temperature")
_WHOLE = ("batch_size",)
# Good values, which the first candidates are trained with; others are tried after those.
_FIRST: Mapping[str, Any] = {
    "learning_rate": LEARNING_RATE,
    "optimizer": "adam",
    "weight_decay": 0.0,
    "temperature": TEMPERATURE,
    "alpha": ALPHA,
    "label_smoothing": 0.0,
    "mixup": 0.0,
    "decay": TrainingSettings.decay,
}
_RANGES: Mapping[str, Any] = {
    "learning_rate": (1e-4, 3e-3),
    "optimizer": ["adam", "adamw"],
    "weight_decay": [0.0, 1e-3, 1e-2],
    "temperature": (1.0, 8.0),
    "alpha": (0.1, _MOST_ALPHA),
    "label_smoothing": [0.0, 0.05, 0.1],
    "mixup": [0.0, MIXUP],
}
_VARIANTS: Sequence[Mapping[str, Any]] = (
    {"learning_rate": 2 * LEARNING_RATE},
    {"label_smoothing": 0.1},
    {"learning_rate": LEARNING_RATE / 3, "alpha": 0.3},
    {"mixup": MIXUP},
)


@dataclass(frozen=True)
class Space:
    """Training settings to try.

    Args:
        ranges: The distribution of each setting that varies, by name.
        fixed: The value of each setting that does not.
        given: Names of the settings that the user chose; they are taken as they are.
        explained: How much of the labels of held-out data the given model knows, from 0 (no more
            than their frequencies) to 1, where it has learned from this training data; `None` where
            it has not.
        mixes: Whether rows are images, which may be mixed, and the given model overfits them.
    """

    ranges: Mapping[str, BaseDistribution] = field(repr=False)
    fixed: Mapping[str, Any]
    given: frozenset[str] = frozenset()
    explained: float | None = None
    mixes: bool = False

    @property
    def raises_rate(self) -> bool:
        """Whether rates are raised for damaged weights: unless the user chose them."""
        return "learning_rate" not in self.given

    def first(self, count: int) -> list[dict[str, Any]]:
        """The first points: good settings for so many candidates, then some near them.

        Args:
            count: Number of candidates of the first generation.
        """
        usual = {**_FIRST, **self._of_learned()}
        good = {name: self._nearest(name, usual.get(name)) for name in self.ranges}
        others = [
            {name: self._nearest(name, value) for name, value in one.items() if name in good}
            for one in _VARIANTS
        ]
        return [good] * count + [good | one for one in others if one and good | one != good]

    def _of_learned(self) -> dict[str, Any]:
        """The settings that are good where the given model has learned its rows.

        It knows little of them beside their labels, so that these weigh more, but where they are
        so noisy that it does not know those of other rows: then its predictions are the better
        ones. Images that it overfits are mixed; where they cannot be, the teacher is all that there
        is against overfitting.
        """
        varies = "mixup" in self.ranges
        mixup = self._nearest("mixup", MIXUP) if varies else self.fixed["mixup"]
        if self.explained is None or (self.mixes and not mixup):
            return {}
        alpha = min(max(ALPHA, self.explained), _MOST_ALPHA)
        return {"alpha": alpha, "mixup": MIXUP} if self.mixes else {"alpha": alpha}

    def settings(self, point: Mapping[str, Any], weights: Weights) -> TrainingSettings:
        """The settings of a candidate.

        Learning rates are those of Adam for weights that are kept; fresh weights and SGD get
        higher ones, unless the user chose the rate.

        Args:
            point: A value for each setting that varies.
            weights: Whether the candidate keeps its parent's weights.
        """
        settings = TrainingSettings(**{**self.fixed, **point})
        rate = settings.learning_rate
        if settings.optimizer == "sgd" and rate is not None and "learning_rate" not in self.given:
            settings = replace(settings, learning_rate=_SGD_TO_ADAM * rate)
        return self.for_fresh(settings) if weights == "fresh" else settings

    def for_fresh(self, settings: TrainingSettings) -> TrainingSettings:
        """The settings for fresh weights, from those for weights that are kept."""
        rate = settings.learning_rate
        if rate is None or "learning_rate" in self.given:
            return settings
        return replace(settings, learning_rate=raised(settings, FRESH_TO_CARRIED))

    def _nearest(self, name: str, value: Any) -> Any:
        """A value of a setting's range: the one given, or the nearest that there is."""
        distribution = self.ranges[name]
        if isinstance(distribution, CategoricalDistribution):
            return value if value in distribution.choices else distribution.choices[0]
        assert isinstance(distribution, (FloatDistribution, IntDistribution))
        value = distribution.low if value is None else value
        return min(max(value, distribution.low), distribution.high)


def raised(settings: TrainingSettings, factor: float) -> float | None:
    """A higher learning rate, at most the highest that is sensible; `None` stays `None`.

    Args:
        settings: With the rate, which is not lowered.
        factor: What the rate is multiplied by.
    """
    rate = settings.learning_rate
    if rate is None:
        return None
    most = MOST_RATE * (_SGD_TO_ADAM if settings.optimizer == "sgd" else 1)
    return max(rate, min(factor * rate, most))


def space_of(
    settings: Mapping[str, Any] | None,
    batch_size: int | None = None,
    obstacles: Mapping[str, str] | None = None,
) -> Space:
    """The settings to try, from what the user gave and what is usual.

    Args:
        settings: For each name of a `TrainingSettings` a tuple `(low, high)` for a range, a list
            for choices, or one value that is fixed; names that are missing get the usual values.
        batch_size: The usual batch size; `None` for a dataset, which has its own.
        obstacles: Why a setting cannot be used with this data, by its name, as
            `saikei.training.soft_labels.soft_obstacles` finds it; it stays at 0.

    Raises:
        InputError: If a name is unknown, a value is out of range, or cannot be used with the data.

    Example:
        >>> space = space_of({"temperature": 2.0, "mixup": 0, "batch_size": [32, 64]})
        >>> sorted(space.ranges)
        ['alpha', 'batch_size', 'label_smoothing', 'learning_rate', 'optimizer', 'weight_decay']
    """
    given = dict(settings or {})
    for name in given:
        _check_name(name)
    size = TrainingSettings.batch_size if batch_size is None else batch_size
    hindered = obstacles or {}
    usual = {**_FIRST, "batch_size": size, **_RANGES, **dict.fromkeys(hindered, 0.0)}
    ranges, fixed = {}, {}
    for name in NAMES:
        value = given.get(name, usual[name])
        _check_values(name, value)
        if name in hindered and value not in (0, [0]):
            raise InputError(f"settings['{name}'] {hindered[name]}: set it to 0 or leave it out.")
        if isinstance(value, tuple):
            ranges[name] = _range(name, *value)
        elif isinstance(value, list) and len(value) > 1:
            ranges[name] = CategoricalDistribution(value)
        else:
            fixed[name] = value[0] if isinstance(value, list) else value
    return Space(ranges, fixed, frozenset(given))


def _range(name: str, low: float, high: float) -> BaseDistribution:
    logarithmic = name in _LOGARITHMIC and low > 0
    if name in _WHOLE:
        return IntDistribution(int(low), int(high), log=True)
    return FloatDistribution(float(low), float(high), log=logarithmic)


def _check_name(name: str) -> None:
    if name in NAMES:
        return
    near = difflib.get_close_matches(str(name), NAMES, n=1, cutoff=0.4)
    meant = f"did you mean '{near[0]}'? There is" if near else "there is"
    raise InputError(f"settings has no '{name}': {meant} {', '.join(NAMES)}.")


def _check_values(name: str, value: Any) -> None:
    """Refuse a range or choices that are malformed, or hold a value out of range."""
    if isinstance(value, tuple):
        numbers = len(value) == 2 and all(map(is_number, value))
        if not numbers or not value[0] < value[1] or name == "optimizer":
            raise InputError(
                f"settings['{name}'] = {value!r}: give a range as (low, high), choices as a list, "
                "or one value."
            )
    if isinstance(value, list) and not value:
        raise InputError(f"settings['{name}'] = []: give at least one choice.")
    for one in value if isinstance(value, (tuple, list)) else [value]:
        if one is not None or name != "learning_rate":
            TrainingSettings(**{name: one})
