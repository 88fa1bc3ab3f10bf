"""All commands in one app."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from saikei.cli import (
    demo,
    diff,
    edit,
    explain,
    export,
    fuse,
    merge,
    optimize,
    profile,
    report,
    resolve,
)
from saikei.cli.advice import as_options
from saikei.errors import InputError, SaikeiError, in_one_line

# What a shell sets to ask for completions, once `saikei --install-completion` has been run.
_COMPLETE = "_SAIKEI_COMPLETE"

app = typer.Typer(
    name="saikei",
    help="The best Keras model that fits a budget, by pruning, distilling and fusing.",
    epilog="Start with: saikei profile model.keras",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from saikei import __version__

        sys.stdout.write(f"saikei {__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, for a bug report.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """The best Keras model that fits a budget, by pruning, distilling and fusing."""


_EXAMPLES: dict[Callable[..., None], str] = {
    demo.demo: "saikei demo --effort 20",
    profile.profile: "saikei profile model.keras --no-latency",
    edit.edit: "saikei edit model.keras --keep 0.5 --out small.keras",
    optimize.optimize: "saikei optimize model.keras --data data.npz --macs 0.25 --out run/",
    resolve.resolve: "saikei resolve run/ --macs 0.1 --out smaller.keras",
    fuse.fuse: "saikei fuse a.keras b.keras --weights learn --data data.npz --out fused.keras",
    merge.merge: "saikei merge a.safetensors b.safetensors --out merged.safetensors",
    explain.explain: "saikei explain a.keras b.keras --data data.npz",
    diff.diff: "saikei diff model.keras small.keras --out diff.html",
    report.report: "saikei report run/ --out report.html",
    export.export: "saikei export model.keras --format onnx --out model.onnx",
}
for _command, _example in _EXAMPLES.items():
    app.command(epilog=f"Example: {_example}")(_command)


def run_command(arguments: Sequence[str]) -> int:
    """Run a command and let its exceptions through.

    Typer's own runner would turn an interrupt into a silent exit code.

    Returns:
        The exit code: 0, or that of an exit that the command asked for.
    """
    if any("\0" in argument for argument in arguments):
        raise InputError("An argument contains a null byte, which no file name can: remove it.")
    if not arguments and _COMPLETE not in os.environ:
        run_command(["--help"])
        raise InputError("No command is given: use one of those above.")
    command = typer.main.get_command(app)
    try:
        if _COMPLETE in os.environ:
            command.main(prog_name="saikei", complete_var=_COMPLETE)
        with _short_warnings(), command.make_context("saikei", list(arguments)) as context:
            try:
                command.invoke(context)
            except SaikeiError as error:
                error.args = (
                    as_options(str(error), _options_of(command, context.invoked_subcommand)),
                )
                raise
    except typer.Exit as error:
        return error.exit_code
    except SystemExit as error:
        # Completions end the process when they are printed.
        if error.code:
            raise
    return 0


def _options_of(app: Any, command: str | None) -> list[str]:
    """The options of a command, such as `--check` and `--no-check`."""
    known = [] if command is None else app.commands[command].params
    return [name for one in known for name in (*one.opts, *one.secondary_opts)]


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Show a warning as one line, without the file and line that raised it."""
    kept = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {in_one_line(message, 2000)}.\n"
    try:
        yield
    finally:
        warnings.formatwarning = kept
