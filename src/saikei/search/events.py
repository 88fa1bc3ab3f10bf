"""What happens in a run, as events for listeners."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from saikei.runs.candidate import Cost
from saikei.scoring.score import Score


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Args:
        kind: `"stage"`, `"measured"`, `"trained"`, `"candidate"`, `"failed"` or `"finished"`.
        seconds: Seconds since the call began.
        values: Names and values, JSON-ready; none is named "event" or "seconds". That of a
            `"trained"` event are the name, its new `epochs`, its `total` epochs, and the seconds
            that the new ones `took`, maybe in an earlier call.
    """

    kind: str
    seconds: float
    values: Mapping[str, Any]

    def to_json(self) -> str:
        """The event as one line of JSON."""
        return json.dumps({"event": self.kind, "seconds": round(self.seconds, 3), **self.values})


# Gets every event of a run, in the process that called `optimize`.
Listener = Callable[[Event], None]


@dataclass
class Events:
    """Calls listeners with everything that happens.

    Args:
        listeners: Functions that get every event, in order.
    """

    listeners: tuple[Listener, ...] = ()
    _began: float = field(default_factory=time.perf_counter)

    def emit(self, kind: str, **values: Any) -> None:
        """Call all listeners with an event.

        Args:
            kind: See `Event`.
            values: Names and values, JSON-ready.
        """
        event = Event(kind, time.perf_counter() - self._began, values)
        for listener in self.listeners:
            listener(event)

    def stage(self, what: str) -> None:
        """A step of the search begins.

        Args:
            what: What is done, such as `"measuring options"`.
        """
        self.emit("stage", what=what)

    def candidate(self, name: str, score: Score, cost: Cost, fits: bool, epochs: int) -> None:
        """A candidate has a new score.

        Args:
            name: Its name.
            score: Its score on validation.
            cost: Its costs.
            fits: Whether it keeps the budget.
            epochs: Epochs that it was trained for.
        """
        self.emit(
            "candidate",
            name=name,
            metric=score.name,
            value=score.value,
            low=score.low,
            high=score.high,
            greater_is_better=score.greater_is_better,
            macs=cost.macs,
            params=cost.params,
            bytes=cost.bytes,
            memory=cost.memory,
            latency=cost.latency,
            fits=fits,
            epochs=epochs,
        )
