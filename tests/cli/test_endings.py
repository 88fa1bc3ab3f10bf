"""Whatever comes out of a command ends as an exit code and one sentence."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from saikei.cli import app, main
from saikei.errors import BudgetError, DiskError, InputError, WorkError

SOURCE = str(Path(__file__).parents[2] / "src")


class ResourceExhaustedError(Exception):
    """As TensorFlow calls it."""


def nested() -> None:
    nested()


def raising(error: BaseException) -> Callable[[object], int]:
    def run(_: object) -> int:
        raise error

    return run


def ended(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[[list[str]], int],
    *arguments: str,
) -> tuple[int, str]:
    """The exit code, and all that stands on stderr."""
    monkeypatch.setattr(app, "run_command", run)
    code = main(list(arguments))
    printed = capsys.readouterr()
    assert printed.out == ""
    return code, printed.err


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (InputError("This is wrong."), 2, "This is wrong."),
        (BudgetError("Too\nsmall."), 2, "Too small."),
        (WorkError("It failed."), 1, "It failed."),
        (DiskError("Full."), 1, "Full."),
        (
            OSError(errno.ENOSPC, "No space left on device", "x.npz"),
            1,
            "The system refused to read or write: 'x.npz': No space left on device.",
        ),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "closed it before everything"),
        (MemoryError(), 1, "not enough memory"),
        (ResourceExhaustedError("OOM when allocating"), 1, "not enough memory"),
        (RecursionError("maximum recursion depth"), 2, "nested too deeply"),
        (ModuleNotFoundError("No module named 'jax'"), 1, "No module named 'jax'"),
        (
            KeyError("a\nb"),
            1,
            "'saikei edit' failed unexpectedly: KeyError: 'a\\nb'. "
            "This is a bug of Saikei: please report it",
        ),
        (AssertionError(), 1, "AssertionError. This is a bug"),
        (ValueError("\x1b]0;owned\x07"), 1, "ValueError: \ufffd]0;owned\ufffd. This is a bug"),
        (SystemExit(3), 3, "Stopped: 3."),
        (KeyboardInterrupt(), 130, "Stopped by Ctrl-C. No file was left half-written."),
    ],
)
def test_every_error_ends_in_one_sentence(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    sentence: str,
) -> None:
    found, message = ended(capsys, monkeypatch, raising(error), "edit", "m.keras", "--json")
    assert found == code
    assert message.startswith("saikei: ") and message.endswith("\n") and message.count("\n") == 1
    assert sentence in message


def test_debug_shows_where_an_error_comes_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = ended(capsys, monkeypatch, raising(KeyError("a")), "--debug", "edit")[1]
    assert "Traceback" in message and message.splitlines()[-1].startswith("saikei: ")
    monkeypatch.setenv("SAIKEI_DEBUG", "1")
    assert "Traceback" in ended(capsys, monkeypatch, raising(InputError("no")), "edit")[1]
    monkeypatch.setenv("SAIKEI_DEBUG", "0")
    assert "Traceback" not in ended(capsys, monkeypatch, raising(InputError("no")), "edit")[1]


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """Ctrl-C is Python's own, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["optimize", "demo"])
def test_a_signal_stops_a_search_with_what_to_do(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    command: str,
) -> None:
    def run(_: object) -> int:
        signal.raise_signal(number)
        return 0

    before = signal.getsignal(number)
    code, message = ended(capsys, monkeypatch, run, command, "my data.npz")
    assert code == 128 + number
    assert message.endswith(f" continues the run: saikei {command} 'my data.npz'\n")
    assert message.count("\n") == 1
    assert signal.getsignal(number) is before


def test_a_stopped_search_names_its_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = KeyboardInterrupt()
    error.add_note("The report of what is there: run/report.html.")
    message = ended(capsys, monkeypatch, raising(error), "optimize", "--out", "run")[1]
    assert message == (
        "saikei: Stopped by Ctrl-C. The report of what is there: run/report.html. The same "
        "command continues the run: saikei optimize --out run\n"
    )


def test_a_full_disk_ends_a_search_with_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = ended(capsys, monkeypatch, raising(DiskError("Full.")), "optimize", "--out", "run")[1]
    assert (
        message == "saikei: Full. The same command continues the run: saikei optimize --out run\n"
    )


def test_an_interrupt_that_a_library_turns_into_an_error_of_its_own_stays_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_: object) -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise RuntimeError("numpy failed to load") from error
        return 0

    assert ended(capsys, monkeypatch, run, "profile")[0] == 130


def test_an_interrupt_that_python_cannot_raise_is_raised_later(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ends:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def run(_: object) -> int:
        Ends()
        for _ in range(500):
            time.sleep(0.01)
        return 0

    assert ended(capsys, monkeypatch, run, "profile")[0] == 130


def test_warnings_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command() -> None:
        text = "12 channels\nare pinned."
        sys.stderr.write(warnings.formatwarning(UserWarning(text), UserWarning, "a.py", 1))

    monkeypatch.setattr(app.typer.main, "get_command", lambda _: _Command(command))
    assert main(["profile"]) == 0
    assert capsys.readouterr().err == "warning: 12 channels are pinned.\n"


class _Command:
    def __init__(self, command: Callable[[], None]) -> None:
        self.command = command

    def make_context(self, *_: object) -> _Command:
        return self

    def __enter__(self) -> _Command:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def invoke(self, _: object) -> None:
        self.command()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "No command is given"),
        (["prof"], "No such command 'prof'"),
        (["profile"], "Missing argument"),
        (["profile", "a\0b.keras"], "null byte"),
        (["--nonsense"], "No such option: --nonsense. See 'saikei --help'"),
        (["optimize", "--train", "a"], "No such option: --train; perhaps --data or --effort"),
        (["optimize", "--validation", "a"], "No such option: --validation; perhaps --data. See"),
        (["optimize", "--epochs", "9"], "--effort. See 'saikei optimize --help'"),
        (["fuse", "--output", "a"], "No such option: --output; perhaps --out. See"),
        (["profile", "--batch", "3"], "No such option: --batch; perhaps --batch-size. See"),
        (["optimize", "--labels", "a"], "No such option: --labels; perhaps --label. See"),
        (["optimize", "--macss", "0.5"], "No such option: --macss; perhaps --macs. See"),
        (["optimize", "--qwerty", "a"], "No such option: --qwerty. See"),
    ],
)
def test_what_was_typed_wrongly_ends_in_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert sentence in message and message.count("\n") == 1


# --- real processes ---

SLEEPING = """
import sys, time
from saikei.cli import app, main

def run(arguments):
    exec("pass")
    print("ready", flush=True)
    time.sleep(60)

app.run_command = run
sys.exit(main())
"""


def process(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": SOURCE},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_process_that_is_stopped_many_times_ends_with_one_sentence(
    number: signal.Signals, code: int
) -> None:
    with process("-c", SLEEPING, "optimize") as stopped:
        assert stopped.stdout is not None and stopped.stdout.readline() == "ready\n"
        for _ in range(5):
            stopped.send_signal(number)
        _, message = stopped.communicate(timeout=60)
    assert stopped.returncode == code
    assert message.count("\n") == 1 and message.endswith("continues the run: saikei optimize\n")


def test_an_output_that_nobody_reads_ends_with_one_sentence() -> None:
    with process("-m", "saikei.cli", "--help") as printing:
        assert printing.stdout is not None and printing.stderr is not None
        printing.stdout.close()
        message = printing.stderr.read()
    assert printing.returncode == 1
    assert message == "saikei: The reader of the output closed it before everything was printed.\n"
