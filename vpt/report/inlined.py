"""Volumes inside a page, so that it stays one file: what its viewer shows, packed, no more than a page can bear."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any
from zlib import compressobj

from vpt.words import agreeing

MOST_MB = 20  # of packed volumes in a page
MOST_CASES = 30
LEVEL, GZIP, PIECE = 6, 31, 1 << 20  # how hard it is packed, zlib's number for gzip, bytes at a time


@dataclass(frozen=True)
class InlinedViewer:
    """scenes: of the cases, as `view.js` reads them, with their files as data addresses; asked: how many there were;
    without: those of them whose scan is not known, or cannot be read.
    """

    scenes: Sequence[Mapping[str, Any]]
    asked: int
    without: int = 0

    @property
    def names(self) -> list[str]:
        return [str(scene["scene"]["name"]) for scene in self.scenes]

    @property
    def note(self) -> str:
        """What is not in it, and why; "" where all is."""
        if self.asked == len(self.scenes):
            return ""
        why = []
        if self.without:
            why.append(
                f"of {self.without} the scan is not known or cannot be read; scans are looked for in the data set that "
                "the true masks lie in, such as a folder scans or imagesTr beside theirs; of a run, where --data says"
            )
        if self.asked > len(self.scenes) + self.without:
            why.append(f"a page holds {MOST_MB} MB of volumes and {MOST_CASES} cases at most")
        told = " ".join(f"{each[0].upper()}{each[1:]}." for each in why)
        return (
            f"{len(self.scenes)} of {self.asked} cases {agreeing(len(self.scenes), 'are')} in this page. {told} vpt "
            "view SCAN MASK shows any."
        )

    @property
    def niivue(self) -> str:
        """The library, packed, in base64."""
        return b64encode(files("vpt").joinpath("assets/niivue/niivue.umd.js.gz").read_bytes()).decode()


@dataclass
class Inlining:
    """Takes scenes one by one, while there is room."""

    room: int = MOST_MB * 1_000_000
    scenes: list[Mapping[str, Any]] = field(default_factory=list)

    def take(self, scene: Mapping[str, Any], volumes: Mapping[str, bytes]) -> None:
        """volumes: `scan` and the layers `0`, `1`, ... as `.nii`. What does not fit is left out."""
        if len(self.scenes) == MOST_CASES:
            return
        room, packed = self.room, {}
        for name, data in volumes.items():
            if (whole := _packed(data, room)) is None:
                return
            packed[name] = whole
            room -= len(whole)
        self.room = room
        self.scenes.append({"scene": scene, "files": packed})


def _packed(data: bytes, room: int) -> str | None:
    """In base64 what gzip makes of it; None as soon as that is more than `room` characters."""
    packer = compressobj(LEVEL, wbits=GZIP)
    parts, size = [], 0
    for start in range(0, len(data), PIECE):
        parts.append(packer.compress(data[start : start + PIECE]))
        size += len(parts[-1])
        if 4 * size > 3 * room:
            return None
    found = b64encode(b"".join([*parts, packer.flush()])).decode()
    return found if len(found) <= room else None
