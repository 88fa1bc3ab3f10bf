"""Ctrl-C, SIGTERM and the end of the terminal, as an exception in the command that they stop."""

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
# What a process begins with; anything else was put there by someone who wants it otherwise, such
# as `nohup`.
_UNTOUCHED = (signal.SIG_DFL, signal.default_int_handler)

_LATER = 0.05


@dataclass
class Signals:
    """What has come.

    Args:
        caught: the signals, in order.
        ended: whether the command has ended: what comes then changes nothing any more.
    """

    caught: list[int] = field(default_factory=list)
    ended: bool = False

    def stop(self, number: int, _: FrameType | None) -> None:
        """Stop the command.

        Raises:
            KeyboardInterrupt: the one exception that libraries let through.
        """
        if self.ended:
            return
        self.caught.append(number)
        raise KeyboardInterrupt

    def again(self, unraisable: Any) -> None:
        """Stop the command, where Python could not: in a callback or the end of an object."""
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            # A little later: now it would be raised in here.
            number = self.caught[-1] if self.caught else signal.SIGINT
            threading.Timer(_LATER, _thread.interrupt_main, [number]).start()
        else:
            sys.__unraisablehook__(unraisable)


@contextmanager
def caught_signals(for_good: bool) -> Iterator[Signals]:
    """Let signals raise in the block.

    Args:
        for_good: whether the process ends after it: then nothing can stop it from doing so.
    """
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    kept = {number: signal.getsignal(number) for number in _STOPPING}
    hook = sys.unraisablehook
    try:
        for number, handler in kept.items():
            if handler in _UNTOUCHED:
                signal.signal(number, signals.stop)
        sys.unraisablehook = signals.again
        yield signals
    finally:
        signals.ended = True
        sys.unraisablehook = hook
        for number, handler in kept.items():
            # Python itself would let the default action loose while it ends.
            signal.signal(number, signal.SIG_IGN if for_good else handler)
