"""Whose scan a case is: said by the data set, settled by a regular expression, or guessed from the cases' names.

A guess is told as such, and refuses nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise

from vpt.data.alike_names import BIDS, PERSON, WHOSE, differing_in_one, settled, stem_of_name
from vpt.data.doubts.class_names import doubtful_classes, missing_among
from vpt.errors import VptError
from vpt.vocabulary import SIDE_WORDS
from vpt.words import counted, listed

OF_FOLDER = re.compile(  # patient3, P3_visit1; frames of a video belong together too
    rf"(?:^|[_-])((?:{WHOSE}|p|pt|video|vid)[_-]?\d+)(?=$|[_-])", re.IGNORECASE
)
PACKED = re.compile(
    "(?:part|image|img|batch|fold|chunk|shard|split|subset|set|group|cohort|data|dataset|domain|series|session|day|week"
    "|year|site|cent(?:er|re)|hospital|clinic|institut(?:e|ion)|lab|scanner|device|vendor|grade|class|type|stage"
    "|category|level)s?",
    re.IGNORECASE,
)
STUDY = re.compile(  # a day first, as the folders of a patient's studies have it: 03-23-2003-NA-PET-CT, 2003-03-23
    r"(?:(?:19|20)\d\d([_-])\d\d\1\d\d|\d\d([_-])\d\d\2(?:19|20)\d\d)(?:[_-].*)?"
)
DAY = re.compile(r"(?:19|20)\d\d([_.-]?)\d\d\1\d\d|\d\d([_.-])\d\d\2(?:19|20)\d\d")
YEAR = re.compile(r"(?:19|20)\d\d")
MANY_FOLDERS = 5  # that are called by a number alone, and are taken for patients
TOLD = 5  # doubts of one kind
SETTLE = "`--patients REGEX` or `patients` in dataset.json settles it"


class Patients:
    """Case -> patient: what is `said` counts, else the case's `stem`, its name without its last number.

    That is of a visit, frame or slice, or says which side it is: `patient002_frame01` -> `patient002`, `p10002_s077` ->
    `p10002`, `sub-01_ses-2_T1w` -> `sub-01`, `P7_left` -> `P7`. Where the names
    of all cases differ in that number only (`brain_s00` ... `brain_s07`), it counts the patients. A name without such
    an ending stands for a patient of its own.
    """

    def __init__(
        self,
        names: Iterable[str],
        said: Mapping[str, str],
        stems: Mapping[str, str],
        own: Mapping[str, str] | None = None,
    ):
        """stems: of the names whose stem is not simply the name without its last number; own: name -> the same without
        the folders of a class or side, of names that have some.
        """
        self.names, self.said, self.stems, self.own = tuple(names), said, stems, own or {}

    def of(self, name: str) -> str:
        return self.said.get(name) or (name if self._count_patients else self._stem(name))

    def are_said(self, *names: str) -> bool:
        return all(self.said.get(name) for name in names)

    def guess(self) -> str:
        """How the names were read, in one sentence; "" where nothing is guessed, or any reading gives the same."""
        unsaid = list(dict.fromkeys(name for name in self.names if not self.said.get(name)))
        read = [name for name in unsaid if self._stem(name) != name]
        joined = len(set(map(self._stem, unsaid))) < len(unsaid)
        if not joined:
            return ""
        patients, cases = counted(len({*map(self.of, self.names)}), "patient"), counted(len(self.names), "case")
        example, stem = read[0], self._stem(read[0])
        if (place := f"/{example}".find(f"/{stem}")) >= 0:  # behind the folder of a class too
            number = example[place + len(stem) :]
            last = "names its patient" if self._count_patients else "is a session, frame or slice of one patient"
            return f"{patients} in {cases}, guessed: {number} of {example} {last}; {SETTLE}"
        if self._count_patients:  # one folder holds them all, and parts nobody
            return ""
        return (
            f"{patients} in {cases}, guessed: {stem}, a folder of {example}, names its patient; `patients` in "
            "dataset.json settles it"
        )

    def doubts(self, splits: Sequence[Mapping[str, Sequence[str]]] = ()) -> list[str]:
        """What is doubtful in what is said: cases that are not there, patients that may be one.

        splits: side -> its cases, of each split that is known.
        """
        said = dict.fromkeys(self.said[name] for name in self.names if self.said.get(name))
        own = [self.strangers() or self.unsaid(), self.bare_numbers(splits)]
        return [*filter(None, own), *missing_among(said, "patients"), *doubtful_classes(said, "patients")[:TOLD]]

    def bare_numbers(self, splits: Sequence[Mapping[str, Sequence[str]]] = ()) -> str:
        """That a number, a date or a word at the end of names, as in `001_002` and `001_MR2`, or a side before them
        (`left_001`) may be of a visit or slice, in one sentence; "" else, and where every split that is known keeps
        such names together.
        """
        units: dict[str, list[str]] = {}
        for name in self.names:
            if not self.said.get(name):
                units.setdefault(self.of(name), []).append(name)
        own = self._own_names(units)
        for what, groups in (*differing_in_one(list(own)), ("folder", _in_several(own))):
            several = {name.removeprefix("/"): its for name, its in groups.items() if len(its) > 1 or what == "folder"}
            shared = {stem: [unit for name in names for unit in own[name]] for stem, names in several.items()}
            cases = [[name for unit in names for name in units[unit]] for names in shared.values()]
            if not shared or len(groups) < 2 or (splits and not any(_parts(each, cases) for each in splits)):
                continue
            alike = next(iter(shared.values()))
            found, count = counted(sum(map(len, cases)), "case"), ", and count as a patient each"
            if any(units[unit] != [unit] for names in shared.values() for unit in names):
                found, count = f"{counted(sum(map(len, shared.values())), 'patient')}, as guessed by the names,", ""
            stems = {name: its for its, group in shared.items() for unit in group for name in units[unit]}
            whose = {name: self.of(name) for name in self.names} | stems
            return (
                f"{found} differ from another in the {what} alone ({listed(alike, 3)}){count}; "
                f"{settled(what, stems, whose)}"
            )
        return ""

    def _own_names(self, units: Iterable[str]) -> dict[str, list[str]]:
        """What is told apart -> its units, in whatever folders of classes and sides: `/p1_1` of `pos/p1_1`."""
        found: dict[str, list[str]] = {}
        for unit in units:
            found.setdefault(f"/{self.own[unit]}" if unit in self.own else unit, []).append(unit)
        return found

    def unsaid(self) -> str:
        """That whose a few cases are is not said, where it is of most, in one sentence; "" else."""
        unsaid = [name for name in self.names if not self.said.get(name)]
        if not unsaid or 2 * len(unsaid) > len(self.names):
            return ""
        return (
            f"the patient of {listed(unsaid, 3)} is not said, as that of the other "
            f"{counted(len(self.names) - len(unsaid), 'case')} is, so each counts as one of its own, or as its name "
            "says; say it of all"
        )

    def strangers(self) -> str:
        """That `patients` names what is no case, while it says nothing of some cases, in one sentence; "" else."""
        unsaid = [name for name in self.names if not self.said.get(name)]
        strange = sorted(set(self.said) - set(self.names))
        if not (strange and unsaid):
            return ""
        return (
            f"`patients` names {counted(len(strange), 'case')} that {'is' if len(strange) == 1 else 'are'} not there "
            f"({listed(strange, 3)}) and says nothing of {listed(unsaid, 3)}; correct the names"
        )

    @cached_property
    def _count_patients(self) -> bool:
        """Whether no case is said to be anyone's, and their last numbers alone tell them apart."""
        stems = {self._stem(name) for name in self.names}
        return not self.said and len(stems) == 1 and not any(map(BIDS.fullmatch, self.names))

    def _stem(self, name: str) -> str:
        return self.stems.get(name) or stem_of_name(name)


def by_pattern(names: Collection[str], pattern: str) -> dict[str, str]:
    """Case -> patient by a regular expression: its first group, or all that it matches.

    Raises VptError for what is no regular expression, and for names in which it finds nothing.
    """
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise VptError(f"patients {pattern!r}: no regular expression ({error}); give one such as '^[^_]+'") from error
    found = {name: match for name in names if (match := regex.search(name))}
    patients = {name: (match.group(1) if regex.groups else match.group()) or "" for name, match in found.items()}
    if lost := [name for name in names if not patients.get(name)]:
        raise VptError(
            f"patients {pattern!r}: finds no patient in {counted(len(lost), 'name')} of {len(names)} "
            f"({listed(lost, 3)}); give a regular expression that finds one in every case's name"
        )
    return patients


def of_folders(folders: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Case -> its patient, as a folder's name says: patient3, P3, sub_01, or a number alone, where there are many, or
    what it is called that holds folders of days, or, where there are many, numbers behind its own name (`A4_1/A4_1_7`).

    folders: case -> those that it lies in, the outermost first. A number counts below a side too, as `train/001`.
    """
    said = {case: found[1] for case, its in folders.items() if (found := OF_FOLDER.search("_".join(its)))}
    numbers = {case: "/".join(its) for case, its in folders.items() if _is_number(its)}
    dated = {case: above for case, its in folders.items() for above, day in pairwise(its) if STUDY.fullmatch(day)}
    repeated = {case: its[-1] for case, its in folders.items() if its and _counts_on(its[-1], case)}
    return said or dated or next((each for each in (numbers, repeated) if len({*each.values()}) >= MANY_FOLDERS), {})


def _counts_on(folder: str, case: str) -> bool:
    """Whether a case is called as its folder, which holds a number and is no part of a set, with a number behind it.

    What is called by a year or day alone is such a part.
    """
    words = re.findall(r"[^\W\d_]+", folder)
    is_part = any(map(PACKED.fullmatch, words)) or bool(YEAR.fullmatch(folder) or DAY.fullmatch(folder))
    return bool(re.search(r"\d", folder) and re.fullmatch(rf"{re.escape(folder)}[_-]\d+", case)) and not is_part


def that_differ(folders: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The same folders of each case without those that all cases lie in at one depth, which part nobody."""
    common = {place for place, names in enumerate(zip(*folders.values(), strict=False)) if len({*names}) == 1}
    return {case: tuple(name for k, name in enumerate(its) if k not in common) for case, its in folders.items()}


def _is_number(folders: Sequence[str]) -> bool:
    """Whether a number that is no year is all that folders say, but for a side."""
    numbers = [name for name in folders if name.lower() not in SIDE_WORDS]
    return len(numbers) == 1 and numbers[0].isdecimal() and not YEAR.fullmatch(numbers[0])


def _in_several(own: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Names of persons that are in folders of several classes: `/P1` of `pre/P1` and `post/P1`."""
    persons = {name: its for name, its in own.items() if len(its) > 1 and PERSON.fullmatch(name)}
    classes = {name: {each.removesuffix(name).rpartition("/")[2] for each in its} for name, its in persons.items()}
    return {name: [name] for name, its in classes.items() if len(its) > 1}


def _parts(split: Mapping[str, Sequence[str]], groups: Iterable[Sequence[str]]) -> bool:
    """Whether a split has cases of one group on two sides."""
    side = {name: side for side, names in split.items() for name in names}
    return any(len({side[name] for name in group if name in side}) > 1 for group in groups)
