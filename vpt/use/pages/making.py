"""How an evaluation or a comparison was made, as facts for its page; those of a model are in `facts`."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from vpt.report.report_page import FactGroup
from vpt.versions import version_of

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


def _facts(
    command: Sequence[str], named: Mapping[str, str], artifacts: Sequence[Path], packages: Sequence[str]
) -> Iterator[tuple[str, str]]:
    if command:
        yield "command", shlex.join([Path(command[0]).name, *command[1:]])
        yield "started in", str(Path.cwd())
    yield from named.items()
    for path in artifacts:
        yield str(path), f"SHA-256 {sha256(path.read_bytes()).hexdigest()}"
    yield "versions", ", ".join(f"{name} {version_of(name)}" for name in packages if version_of(name))
    yield "python", platform.python_version()
    yield "platform", platform.platform()
