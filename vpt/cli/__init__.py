"""The command line: thin, no logic. Heavy imports wait until a command runs, so that `vpt --help` answers at once."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
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
from vpt.cli.shared import UNREAD
from vpt.cli.train import train
from vpt.cli.view import view
from vpt.cli.watch import watch
from vpt.errors import SaidElsewhere, VptError, VptWarning
from vpt.machine.available import address_space
from vpt.machine.scarce import KINDS, is_out_of_memory
from vpt.progress import say

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
    sys.exit(_delivered(_run(debug)))


def _run(debug: bool) -> int | str | None:
    """The command that was asked for -> its exit code."""
    stream = sys.stdout
    if not _is_somewhere():
        _complain("the folder that this is started in is gone; change to one that is there")
        return 1
    try:
        app()
    except SystemExit as left:
        return left.code if sys.stdout is stream else UNREAD  # typer puts another in the place of one that is unread
    except SaidElsewhere:
        return 1
    except BrokenPipeError:  # `vpt ... | head`: whoever read has seen enough
        return UNREAD
    except VptError as error:
        if debug:
            raise
        _complain(str(error))
    except PermissionError as error:
        if debug:
            raise
        place = error.filename or "a file or folder"
        _complain(f"{place}: this user may not read or write it; have the permission given, or run as who has it")
    except (OSError, *KINDS) as error:
        if debug or not (isinstance(error, OSError) or is_out_of_memory(error)):
            raise
        _complain(f"{_in_words(error)}; --debug shows where it arose")
    return 1


def _in_words(error: Exception) -> str:
    """What the system or a library says, in a line; of too little memory, what to do."""
    said = str(error).partition("\n")[0] or type(error).__name__
    if not is_out_of_memory(error) or (isinstance(error, MemoryError) and str(error)):  # which says it itself
        return said
    more = "use a machine with more" if address_space() is None else "raise the limit on it (ulimit -v unlimited)"
    return f"too little memory ({said}); close other programs, or {more}"


def _is_somewhere() -> bool:
    """Whether there is a working folder, without which libraries end the process in words of their own."""
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def _complain(sentence: str) -> None:
    say(f"error: {sentence}", sys.stderr)


def _delivered(code: int | str | None) -> int | str | None:
    """The exit code once all that was printed has left; a full disk, or a reader that is gone, is an end of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # it is None where the caller had closed it
                stream.flush()
        except OSError as error:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # what is left in it would be tried again
            if isinstance(error, BrokenPipeError):
                code = code or UNREAD
            elif not code:
                _complain(
                    f"what was printed could not all be written ({error.strerror}); make room, or print elsewhere"
                )
                code = 1
    return code


def _warn(otherwise: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any) -> None:
    """A warning of ours as one line, without the place in our code; any other as Python shows it."""
    if issubclass(category, VptWarning):
        say(f"warning: {message}", sys.stderr)
    else:
        otherwise(message, category, *place)
