"""How an evaluation or a comparison was made, as facts for its page; those of a model are in `facts`."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from vpt.files import file_sha256
from vpt.report.report_page import FactGroup
from vpt.versions import version_of
from vpt.words import counted

USED = ("vpt", "numpy", "scipy", "nibabel")  # what scores come from


def making_of(
    heading: str,
    command: Sequence[str],
    named: Mapping[str, str] | None = None,
    artifacts: Sequence[Path] = (),
    packages: Sequence[str] = USED,
) -> FactGroup:
    """command: as `sys.argv` has it, empty where it was no command; named: what was compared; artifacts: the models."""
    return FactGroup(heading, tuple(_facts(command, named or {}, artifacts, packages)))


def as_typed(command: Sequence[str]) -> str:
    """`sys.argv` as one types it."""
    program = Path(command[0])
    called = ["python", "-m", "vpt"] if program.name == "__main__.py" else [program.name]
    return shlex.join([*called, *command[1:]])


def to_view(command: Sequence[str]) -> str:
    """The command that puts the volumes inside the page as well; "" where it was no command."""
    return f"{as_typed(command)} --viewer" if command else ""


def masks_sha256(files: Sequence[str]) -> str:
    """Of masks one digest in words, that of what `sha256sum` prints of them in their folder, by name; "" where one is
    no file any more.
    """
    paths = sorted(map(Path, files), key=lambda path: path.name)
    if not paths or not all(path.is_file() for path in paths):
        return ""
    lines = "".join(f"{file_sha256(path)}  {path.name}\n" for path in paths)
    return f"{counted(len(paths), 'file')}, SHA-256 of their `sha256sum` {sha256(lines.encode()).hexdigest()}"


def _facts(
    command: Sequence[str], named: Mapping[str, str], artifacts: Sequence[Path], packages: Sequence[str]
) -> Iterator[tuple[str, str]]:
    if command:
        yield "command", as_typed(command)
        yield "started in", str(Path.cwd())
    yield from ((name, words) for name, words in named.items() if words)
    for path in artifacts:
        yield str(path), f"SHA-256 {sha256(path.read_bytes()).hexdigest()}"
    yield "versions", ", ".join(f"{name} {version_of(name)}" for name in packages if version_of(name))
    yield "python", platform.python_version()
    yield "platform", platform.platform()
