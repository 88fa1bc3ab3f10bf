"""The command line: `saikei COMMAND`, one file a command."""

from __future__ import annotations

import os
import sys

import typer
from typer.exceptions import TyperException

from saikei.cli import demo, edit, explain, export, fuse, merge, optimize, profile, report
from saikei.errors import InputError, SaikeiError

app = typer.Typer(
    name="saikei",
    help="The best Keras model that fits a budget, by pruning, distilling and fusing.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo.demo)
app.command()(profile.profile)
app.command()(edit.edit)
app.command()(optimize.optimize)
app.command()(fuse.fuse)
app.command()(merge.merge)
app.command()(explain.explain)
app.command()(report.report)
app.command()(export.export)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; those of the process when not given.

    Returns:
        The exit code: 0 success, 1 the work failed, 2 the arguments or input were wrong.
    """
    # TensorFlow reads it when it is imported, which is later.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        return int(app(arguments, standalone_mode=False) or 0)
    except TyperException as error:
        return _complain(error.format_message(), error.exit_code)
    except InputError as error:
        return _complain(str(error), 2)
    except SaikeiError as error:
        return _complain(str(error), 1)
    except KeyboardInterrupt:
        return _complain("Stopped. The same command with the same --out goes on from here.", 130)


def _complain(message: str, code: int) -> int:
    if message:
        sys.stderr.write(f"saikei: {' '.join(message.split())}\n")
    return code
