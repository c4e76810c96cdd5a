"""The command line: thin, no logic. Heavy imports wait until a command runs, so that `vpt --help` answers at once."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from io import TextIOWrapper
from typing import Annotated, Any, NoReturn

import typer

from vpt.cli.about import demo, doctor, fetch, info
from vpt.cli.backbones import backbones
from vpt.cli.check import check
from vpt.cli.compare import compare
from vpt.cli.config import config
from vpt.cli.continual import continual
from vpt.cli.evaluate import evaluate
from vpt.cli.explain import explain
from vpt.cli.fetch_data import fetch_data
from vpt.cli.predict import predict
from vpt.cli.train import train
from vpt.cli.view import view
from vpt.cli.watch import watch
from vpt.errors import SaidElsewhere, VptError, VptWarning

app = typer.Typer(
    name="vpt",
    help="Adapt a frozen vision encoder to your scans by training a few prompt tokens and a small head.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    check,
    train,
    predict,
    watch,
    evaluate,
    compare,
    continual,
    explain,
    view,
    config,
    backbones,
    info,
    fetch,
    fetch_data,
    demo,
    doctor,
):
    app.command()(command)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"vpt {version('vpt')}")
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version, and end.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (also after a command).")
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """Entry point: a user's mistake is one sentence and exit code 1; `--debug` shows where it arose."""
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    warnings.showwarning = partial(_warn, warnings.showwarning)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be text
    try:
        app()
    except SaidElsewhere:
        _leave(1)
    except VptError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        _leave(1)
    except (OSError, MemoryError) as error:
        if debug:
            raise
        print(f"error: {str(error) or 'out of memory'}; --debug shows where it arose", file=sys.stderr)
        _leave(1)
    except RuntimeError as error:
        if debug or not _wants_memory(error):
            raise
        said = str(error).partition("\n")[0]
        told = f"error: too little memory ({said}); close other programs, or use a machine with more"
        print(f"{told}; --debug shows where it arose", file=sys.stderr)
        _leave(1)
    _leave(0)


def _wants_memory(error: RuntimeError) -> bool:
    if "can't start new thread" in str(error):
        return True
    if "torch" not in sys.modules:  # nor is there the memory to import it
        return False
    from vpt.machine.memory import is_out_of_memory

    return is_out_of_memory(error)


def _warn(otherwise: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any) -> None:
    """A warning of ours as one line, without the place in our code; any other as Python shows it."""
    if issubclass(category, VptWarning):
        print(f"warning: {message}", file=sys.stderr, flush=True)
    else:
        otherwise(message, category, *place)


def _leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.exit(code)
