"""Channels told by a word in their files' names, as training pairs them: `CASE_flair`, `CASE_t1`, or `CASE/flair`."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vpt.data.cases import case_name, channel_suffix, without_suffix
from vpt.data.layouts.naming import PLAIN, SAYING
from vpt.errors import VptError
from vpt.readers import reader_of
from vpt.words import listed

Words = tuple[str, ...]

BETWEEN = "_-. "  # words of a name, as `vpt.data.layouts.naming.APART` has it
WORD = re.compile(r"[^_\-. ]+")


@dataclass(frozen=True)
class Place:
    """What stands in a file's name before and behind the word for its channel: the same of all files of a case."""

    before: str
    after: str

    def case(self, file: Path) -> str:
        """What a case is called: its files' names without that word, or the folder where nothing is left of them."""
        left = (self.before + self.after.lstrip(BETWEEN)).rstrip(BETWEEN)
        return left or Path(os.path.abspath(file.parent)).name or case_name(file)


Files = Mapping[int, Sequence[Path]]  # channel -> the files that are called so


@dataclass
class Named:
    """What the files of a folder are by the names of channels.

    cases: name -> a file for each channel, in the order of the names; problems: name -> why files make no case;
    others: further sequences of cases; rest: files that say no channel, and those that hold all of them.
    """

    cases: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    problems: dict[str, VptError] = field(default_factory=dict)
    others: list[Path] = field(default_factory=list)
    rest: list[Path] = field(default_factory=list)


def by_channel_names(files: Sequence[Path], channels: Sequence[str]) -> Named:
    """Files of one folder to cases: those whose names are equal but for a channel's, in capitals or not, are one.

    Where several words of a name are channels', it is the last one with which a case is whole. Files of one case that
    are numbered (`CASE_0000`) stay as they are; channels that are called by numbers are told by no name. Of a file
    that belongs to no whole case the header is read, which says whether it holds all channels itself.
    """
    called = [tuple(PLAIN.of(name.casefold())) for name in channels]
    if len(called) < 2 or len({*called}) < len(called) or not all(map(_tells, called)):
        return Named(rest=list(files))
    numbered = _numbered(files, len(channels))
    readings = {file: [*_readings(case_name(file), called)] for file in files if file not in numbered}
    groups = _by_place(readings)
    whole = {place: groups[place] for place in _whole(groups, len(channels))}
    taken = _files_of(whole)
    left = [file for file in readings if file not in taken]
    said = {file: readings[file] for file in left if readings[file] and not channel_suffix(file)}
    parts = _parts(said, groups, len(channels))
    unsaid = [file for file in left if not readings[file]]
    beside = _beside(unsaid, {*whole, *parts}, len(channels))
    found = Named(others=[file for place in whole for file in beside.get(place, ())])
    for place, its in whole.items():
        _add(found, place, tuple(its[channel][0] for channel in range(len(channels))))
    for place, its in parts.items():
        first = its[min(its)][0]
        name = place.case(first)
        found.problems[name] = VptError(f"{first}: {name} {_what_is_wrong(its, channels, beside.get(place, ()))}")
    used = {*taken, *_files_of(parts), *(file for own in beside.values() for file in own)}
    found.rest += [file for file in files if file not in used]
    return found


def _tells(words: Words) -> bool:
    """Whether a channel of such words can be told: cases of 4-D files are numbered as well."""
    return bool(words) and not "".join(words).isdigit()


def _files_of(groups: Mapping[Place, Files]) -> set[Path]:
    return {file for its in groups.values() for own in its.values() for file in own}


def _add(found: Named, place: Place, files: tuple[Path, ...]) -> None:
    """One more case, or a problem where another has its name (`a_t1` and `a-t1`)."""
    name = place.case(files[0])
    if name in found.cases:
        text = f"the second case called {name}; keep one of the two or rename its files"
        found.problems[case_name(files[0])] = VptError(f"{files[0]}: {text}")
    else:
        found.cases[name] = files


def _numbered(files: Sequence[Path], channels: int) -> set[Path]:
    """The files of cases that have all their numbers."""
    by_stem: dict[str, dict[str, Path]] = defaultdict(dict)
    for file in files:
        if suffix := channel_suffix(file):
            by_stem[without_suffix(file)][suffix] = file
    wanted = {f"{number:04d}" for number in range(channels)}
    return {file for its in by_stem.values() if its.keys() == wanted for file in its.values()}


def _readings(name: str, called: Sequence[Words]) -> Iterator[tuple[Place, int]]:
    """Where a name says a channel, and which, from its end on."""
    words = [(found.start(), found.end(), found[0].casefold()) for found in WORD.finditer(name)]
    for k in reversed(range(len(words))):
        for channel, own in enumerate(called):
            here = words[k : k + len(own)]
            if tuple(word for _, _, word in here) == own:
                yield Place(name[: here[0][0]], name[here[-1][1] :]), channel


def _by_place(readings: Mapping[Path, Sequence[tuple[Place, int]]]) -> dict[Place, dict[int, list[Path]]]:
    groups: dict[Place, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for file, its in readings.items():
        for place, channel in its:
            groups[place][channel].append(file)
    return groups


def _whole(groups: Mapping[Place, Files], channels: int) -> list[Place]:
    """Where every channel is there once; of two that share a file the one whose word stands last."""
    found: list[Place] = []
    taken: set[Path] = set()
    for place in sorted(groups, key=lambda place: (len(place.after), place.before, place.after)):
        files = [file for its in groups[place].values() for file in its]
        if len(files) == len(groups[place]) == channels and taken.isdisjoint(files):
            found.append(place)
            taken |= {*files}
    return found


def _parts(
    readings: Mapping[Path, Sequence[tuple[Place, int]]], groups: Mapping[Place, Files], channels: int
) -> dict[Place, dict[int, list[Path]]]:
    """Files that say a channel, but make no whole case, each where most other channels are."""
    found: dict[Place, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for file, its in readings.items():
        if not _holds_all(file, channels):
            place, channel = max(its, key=lambda reading: len(groups[reading[0]]))
            found[place][channel].append(file)
    return found


def _beside(files: Sequence[Path], places: Collection[Place], channels: int) -> dict[Place, list[Path]]:
    """Of cases the files called as they are but for one word, which says neither a channel nor a mask.

    Where a case is called by its folder, that is any file of one word, so many of them are none of its.
    """
    found: dict[Place, list[Path]] = defaultdict(list)
    for file in files:
        name = case_name(file)
        words = [word for word in WORD.finditer(name) if word[0].lower() not in SAYING]
        own = (Place(name[: word.start()], name[word.end() :]) for word in reversed(words))
        place = next((place for place in own if place in places), None)
        if place is not None and not _holds_all(file, channels):
            found[place].append(file)
    return {place: own for place, own in found.items() if place != Place("", "") or len(own) <= channels}


def _holds_all(file: Path, channels: int) -> bool:
    """Whether a file has all the channels itself, by its header."""
    try:
        return reader_of(file).count_channels(exact=False) == channels
    except (VptError, OSError, ValueError):  # of a damaged header
        return False


def _what_is_wrong(its: Files, channels: Sequence[str], beside: Sequence[Path]) -> str:
    said = []
    if missing := [name for channel, name in enumerate(channels) if channel not in its]:
        have = [channels[channel] for channel in sorted(its)]
        said.append(
            f"has {_of(have)}, but not {listed(missing, 8)}, which the model was trained on; add "
            f"{'it' if len(missing) == 1 else 'them'}, or take the case out"
        )
    for channel, files in sorted(its.items()):
        if len(files) > 1:
            said.append(
                f"has the channel {channels[channel]} more than once ({listed(file.name for file in files)}); keep one"
            )
    if beside and missing:
        called = "is called" if len(beside) == 1 else "are called"
        said.append(f"{listed(file.name for file in beside)} {called} as none of the model's channels")
    return "; ".join(said)


def _of(names: Sequence[str]) -> str:
    return f"the channel{'s' if len(names) > 1 else ''} {listed(names, 8)}"
