"""Options that several commands take, and how commands speak to the terminal."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast, get_args

import typer

from vpt.vocabulary import AskedDecision
from vpt.words import either

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 110  # of tables that go into a file
UNREAD = 141  # exit code as of a program that SIGPIPE ends: who read its output has left (`vpt ... | head`)

RunsOrArtifacts = Annotated[
    list[str],
    typer.Option(
        "-m",
        "--model",
        help="A run's folder, an artifact (.safetensors), a folder of folds or of a comparison; several: a task each, "
        "or averaged (--mean).",
    ),
]
PatientsPattern = Annotated[
    str | None,
    typer.Option("--patients", help="Whose a case is: what this regular expression (its first group) finds in a name."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Postprocess = Annotated[
    str,
    typer.Option(
        help="auto: masks as the training chose to tidy them (train.postprocess), none: as the model has them."
    ),
]
MirrorImages = Annotated[
    bool, typer.Option("--tta", help="Average over the mirror images that the model was trained on (train.mirror).")
]
Decide = Annotated[
    str,
    typer.Option(
        help="likeliest: of every voxel its likeliest label; dice: the mask of the highest expected Dice; auto: as the "
        "training chose (train.postprocess)."
    ),
]
Weights = Annotated[Path | None, typer.Option(help="Where the backbone's weights lie, if elsewhere than in training.")]

Viewer = Annotated[
    bool, typer.Option("--viewer", help="The page holds the volumes too, to scroll and turn (20 MB at most).")
]

Task = Annotated[str | None, typer.Option(help="segmentation or classification, where the data allow both.")]
Shots = Annotated[int | None, typer.Option(help="Learn from so many examples per class (or cases).")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Any setting: --set optim.lr=1e-3 (repeat).")]
ChosenDevice = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]


def overrides_of(named: Mapping[str, Any], settings: list[str] | None) -> dict[str, Any]:
    """What named options (None: not given) and `--set`, which has the last word, say by dotted keys."""
    from vpt.config import parse_override

    given = {key: value for key, value in named.items() if value is not None}
    return given | dict(parse_override(text) for text in settings or [])


@contextmanager
def light_imports() -> Iterator[None]:
    """Around the imports of a command that answers in a second or two: they look for no garbage among modules, and
    nibabel does not import pydicom, with its decoders and its client for downloads, to parse the DICOM headers that a
    NIfTI file may carry, which vpt copies as they are. What reads DICOM imports pydicom afterwards.
    """
    hidden = "pydicom" not in sys.modules
    gc.disable()
    if hidden:
        sys.modules["pydicom"] = None  # type: ignore[assignment]  # Python's way to say that there is none
    try:
        yield
    finally:
        if hidden and "pydicom" in sys.modules and sys.modules["pydicom"] is None:
            del sys.modules["pydicom"]
        gc.enable()


def usage(message: str) -> NoReturn:
    print(f"usage: {message}", file=sys.stderr)
    raise typer.Exit(2)


def list_methods(shown: Mapping[str, str]) -> None:
    """Print names of methods, and what each is, in two columns."""
    wide = max(map(len, shown))
    print("\n".join(f"{name:<{wide}} {words}" for name, words in shown.items()))


def console() -> Console:
    from rich.console import Console

    class Told(Console):
        def on_broken_pipe(self) -> None:
            raise SystemExit(UNREAD)

    if sys.stdout is not None and sys.stdout.isatty():
        return Told()
    asked = os.environ.get("COLUMNS", "")
    return Told(width=int(asked) if asked.isdecimal() and int(asked) else WIDTH)


def decision_of(word: str) -> AskedDecision:
    """What `--decide` asks for."""
    if word not in get_args(AskedDecision):
        usage(f"--decide {word}: expected {either(get_args(AskedDecision))}")
    return cast(Any, word)


def is_postprocessed(word: str) -> bool:
    """What `--postprocess` asks for."""
    if word not in ("auto", "none"):
        usage(f"--postprocess {word}: expected auto or none")
    return word == "auto"
