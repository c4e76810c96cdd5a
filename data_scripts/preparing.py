"""The command line that the scripts share which prepare data sets; what they do is in `vpt.published`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from vpt.errors import VptError
from vpt.published.material import Material, Origin, make_set


def options(doc: str) -> argparse.ArgumentParser:
    """What all scripts ask for that fetch a data set or take it from disk."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--to", type=Path, required=True, help="the folder to make")
    parser.add_argument("--source", type=Path, help="the set on disk, a folder or an archive, instead of fetching")
    parser.add_argument("--downloads", type=Path, help="where archives are kept; default: downloads/ beside --to")
    return parser


def prepare_drawn(doc: str, origin: Origin, build: Callable[[int, Material, Path], None]) -> None:
    """The whole of a script whose split is drawn: `build` is given the seed."""
    parser = options(doc)
    parser.add_argument("--seed", type=int, default=0, help="of the split that is drawn")
    args = parser.parse_args()
    prepare(origin, args, partial(build, args.seed))


def prepare(origin: Origin, args: argparse.Namespace, build: Callable[[Material, Path], None]) -> None:
    """Print the terms, have `build` fill a new folder that `vpt` reads, and say where it is."""
    print(origin.terms, flush=True)
    with told():
        print(make_set(origin, args.to, args.source, args.downloads, build))


@contextmanager
def told() -> Iterator[None]:
    """A mistake in the input ends the program with its sentence."""
    try:
        yield
    except (VptError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
