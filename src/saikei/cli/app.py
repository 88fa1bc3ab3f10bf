"""All commands in one app."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from saikei.cli import demo, edit, explain, export, fuse, merge, optimize, profile, report
from saikei.errors import InputError, in_one_line

app = typer.Typer(
    name="saikei",
    help="The best Keras model that fits a budget, by pruning, distilling and fusing.",
    add_completion=False,
)


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error comes from, for a report of it.")
    ] = False,
) -> None:
    """The best Keras model that fits a budget, by pruning, distilling and fusing."""


app.command()(demo.demo)
app.command()(profile.profile)
app.command()(edit.edit)
app.command()(optimize.optimize)
app.command()(fuse.fuse)
app.command()(merge.merge)
app.command()(explain.explain)
app.command()(report.report)
app.command()(export.export)


def run_command(arguments: Sequence[str]) -> int:
    """Run a command, and let everything that it raises through.

    Typer's own runner would turn an interrupt into a silent exit code.

    Args:
        arguments: of the command line, without the program's name.

    Returns:
        The exit code, 0 but for an exit that was asked for.
    """
    if any("\0" in argument for argument in arguments):
        raise InputError("An argument holds a null byte, which no name of a file has.")
    if not arguments:
        run_command(["--help"])
        raise InputError("No command is given: use one of those above.")
    command = typer.main.get_command(app)
    try:
        with _short_warnings(), command.make_context("saikei", list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as error:
        return error.exit_code
    return 0


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Show a warning as one line, without the place in a library that raised it."""
    kept = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {in_one_line(message, 2000)}.\n"
    try:
        yield
    finally:
        warnings.formatwarning = kept
