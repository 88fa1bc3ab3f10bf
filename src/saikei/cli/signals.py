"""Ctrl-C, SIGTERM and the closing of the terminal, as an exception in the running command."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

_STOPPING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
# Handlers that a process starts with; any other was set on purpose, for example by `nohup`.
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)

_LATER = 0.05


@dataclass
class Signals:
    """The signals that were caught.

    Args:
        caught: Numbers of the signals, in order.
        ended: Whether the command has ended; later signals are ignored.
    """

    caught: list[int] = field(default_factory=list)
    ended: bool = False

    def stop(self, number: int, _: FrameType | None) -> None:
        """Stop the command.

        Raises:
            KeyboardInterrupt: The one exception that libraries do not catch.
        """
        if self.ended:
            return
        self.caught.append(number)
        raise KeyboardInterrupt

    def again(self, unraisable: Any) -> None:
        """Stop the command after Python could not, in a callback or a destructor."""
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            # A little later: now it would be raised in this hook.
            number = self.caught[-1] if self.caught else signal.SIGINT
            threading.Timer(_LATER, _thread.interrupt_main, [number]).start()
        else:
            sys.__unraisablehook__(unraisable)


@contextmanager
def caught_signals(for_good: bool) -> Iterator[Signals]:
    """Let signals raise an exception in the block.

    Args:
        for_good: Whether the process ends after the block; signals are then ignored after it.
    """
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    kept = {number: signal.getsignal(number) for number in _STOPPING}
    hook = sys.unraisablehook
    try:
        for number, handler in kept.items():
            if handler in _DEFAULTS:
                signal.signal(number, signals.stop)
        sys.unraisablehook = signals.again
        yield signals
    finally:
        signals.ended = True
        sys.unraisablehook = hook
        for number, handler in kept.items():
            # Python would otherwise run the default action while it exits.
            signal.signal(number, signal.SIG_IGN if for_good else handler)
