"""The command line: every command is registered here, and an error that the user can correct is one line on stderr.

`gpnas.cli` is the one place that joins the core with the search spaces and the evaluators. Its modules import everything but
typer, errors and each other inside functions, or for type checking only: `gpnas --help` must answer at once, and torch, nni,
wandb, numpy and pycocotools take seconds to import.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gpnas import __version__
from gpnas.cli.analyze import analyze
from gpnas.cli.bench import bench
from gpnas.cli.catalogue import catalogue
from gpnas.cli.data import data
from gpnas.cli.export import export
from gpnas.cli.search import report, resume, search, show
from gpnas.cli.train import predict, train, val
from gpnas.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, GpnasError

# The base class of all usage errors (ClickException): newer typers have their own copy of click, older ones import click.
UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Neural architecture search for object detectors over the gradient-path design space.",
)

for command in (data, search, resume, show, report, export, analyze, catalogue, train, val, predict):
    app.command()(command)
app.add_typer(bench, name="bench")


def main() -> None:
    """Entry point. Errors that gpnas raises on purpose and usage errors become one line on stderr and an exit code."""
    try:
        code = app(standalone_mode=False)
    except GpnasError as error:
        _complain(str(error), error.exit_code)
    except UsageProblem as error:
        _complain(_usage(error), EXIT_BAD_INPUT)
    except (typer.Abort, KeyboardInterrupt):
        _complain("stopped", EXIT_FAILED)
    sys.exit(code if isinstance(code, int) else EXIT_DONE)


def _usage(error: Exception) -> str:
    """The message of a usage error, with the value that was given for the option: some versions of typer leave it out."""
    message = str(error.format_message())  # type: ignore[attr-defined]
    given = sys.argv[1:]
    for option in getattr(getattr(error, "param", None), "opts", ()):
        value = next((given[i + 1] for i, word in enumerate(given[:-1]) if word == option), None)
        if value is not None and value not in message:
            return f"{option} {value}: {message}"
    return message


def _complain(message: str, code: int) -> None:
    print("gpnas: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        typer.echo(f"gpnas {__version__}")
        raise typer.Exit
