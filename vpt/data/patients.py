"""Whose scan a case is: said by the data set, settled by a regular expression, or guessed from the cases' names.

A guess is told as such, and refuses nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise

from vpt.data.doubts.class_names import doubtful_classes, missing_among
from vpt.errors import VptError
from vpt.vocabulary import SIDE_WORDS
from vpt.words import counted, listed

NUMBERED = (
    "frame|timepoint|time|tp|visit|vis|session|ses|run|rep|scan|echo|slice|slc|sl|week|month|wk|day|aug"
    "|year|yr|exam|study|view|series|acq|phase|level|core|roi|mr|followup|fu"
)
LETTERS = "[fmstvz]"  # of a frame, month, session, time, visit, slice; `_S_0295` is a subject
PARTS = "tile|patch|crop"  # of one image, by rows and columns
COPIES = (
    r"(?:[_ -]copy(?:[_ -]?\(?\d+\)?)?|[_-](?:[hv]?flip(?:ped)?|mirror(?:ed)?|rot(?:ated)?[_-]?\d+))"  # of an image
)
PLACES = r"[_-]x[_-]?\d+[_-]y[_-]?\d+"  # of a patch in an image
NAMED = (
    "(?:ses-)?(?:pre|post|baseline|bl|followup|fu)"  # of a visit
    "|arterial|portal|venous|insp|exp|inhale|exhale|ed|es|supine|prone|frontal|lateral"  # of a phase, a position
    "|left|right|l|r|od|os|(?:[lr][_-]?)?(?:cc|mlo)"  # of eyes, knees, breasts and their views
)
REPEATED = re.compile(
    rf"(?:[_ -](?:(?:(?:{NUMBERED})[_ -]?|{LETTERS})\d+|(?:{PARTS})(?:[_-]?\d+)+|{NAMED})|{COPIES}|{PLACES})+$"
    rf"|(?<=\d)(?:[_-](?:{NAMED}))+[_-]\d{{1,2}}$"  # of a lesion in a view: P_00004_LEFT_CC_1
    rf"|(?<=\d)(?:l|r|od|os|v\d+|(?:{NUMBERED})\d+)$",  # patient1visit2
    re.IGNORECASE,
)
BIDS = re.compile(r"((?:.*/)?sub-[A-Za-z0-9+]+)_[^/]*")  # the subject stands first, whatever follows
BRATS = re.compile(r"((?:.*/)?BraTS-[A-Za-z]+-\d{5})-\d{3}", re.IGNORECASE)  # since 2023: the patient, a visit
DATED = re.compile(
    r"(.+?)[_ -](?:(?:19|20)\d\d([_. -]?)\d\d\2\d\d|\d\d?([_. -])\d\d?\3(?:19|20)\d\d)"  # 2020-02-01, 1.2.2020
)
WHOSE = "patient|pat|subject|subj|sub|person|case|participant|id|pid"  # before a number that is a patient's
AT_FIRST = re.compile(  # left_P1, pre_P1, scan2_P1; siteA_P1, benign_P1 and train_P1 are of others
    rf"(?:{NAMED})[_ -](.*\d.*)|[^_ -]*\d[^_ -]*[_ -]((?:{WHOSE}|p|pt)[_-]?\d+)", re.IGNORECASE
)
BARE = re.compile(  # 001_002, person7_virus_13, case01.003, P01 (3), P01img3; no DICOM UID
    rf"(?![\d.]+$)(.*\d(?:[_-](?!(?:{WHOSE})[_-])[^\W\d_]+)*)(?:[_\-# ]+\d+|\.\d{{3,}}|[_ -]?\(\d+\))"
    rf"|(.*\d)(?:img|im|image|{LETTERS})\d+",
    re.IGNORECASE,
)
COUNTED = re.compile(r"([^\W\d_]+(?:[_\- ][^\W\d_]+)*)[_\-# ]+\(?\d+\)?")  # smith_3, JD-2, anna meier (1)
MANY_WORDS, FEW_CASES = 5, 9  # of so many words, with so few numbers each, these may be people; `ct_` and `mr_` are not
ENDING = re.compile(r"[_ -][^\W\d_][\w ]*$")  # P01_3_crop: of all names the same, it tells none apart
OF_FOLDER = re.compile(  # patient3, P3_visit1; frames of a video belong together too
    rf"(?:^|[_-])((?:{WHOSE}|p|pt|video|vid)[_-]?\d+)(?=$|[_-])", re.IGNORECASE
)
PACKED = re.compile(
    r"(?:part|image|img|batch|fold|chunk|shard|split|subset|set|group|site|cent(?:er|re))s?", re.IGNORECASE
)
STUDY = re.compile(  # a day first, as the folders of a patient's studies have it: 03-23-2003-NA-PET-CT, 2003-03-23
    r"(?:(?:19|20)\d\d([_-])\d\d\1\d\d|\d\d([_-])\d\d\2(?:19|20)\d\d)(?:[_-].*)?"
)
YEAR = re.compile(r"(?:19|20)\d\d")
MANY_FOLDERS = 5  # that are called by a number alone, and are taken for patients
WORDED = re.compile(r"(.*\d.*)[_ -]([^_ -]*[^\W\d_][^_ -]*)|(.*\d)([a-dA-D])")  # a word, or a letter behind a number
TOLD = 5  # doubts of one kind
SETTLE = "`--patients REGEX` or `patients` in dataset.json settles it"


def stem_of_name(name: str) -> str:
    """A name without what says which visit, side, frame or part it is; itself where nothing does."""
    found = BIDS.fullmatch(name) or BRATS.fullmatch(name)
    return found[1] if found else REPEATED.sub("", name)


class Patients:
    """Case -> patient: what is `said` counts, else the case's `stem`, its name without its last number.

    That is of a visit, frame or slice, or says which side it is: `patient002_frame01` -> `patient002`, `p10002_s077` ->
    `p10002`, `sub-01_ses-2_T1w` -> `sub-01`, `P7_left` -> `P7`. Where the names
    of all cases differ in that number only (`brain_s00` ... `brain_s07`), it counts the patients. A name without such
    an ending stands for a patient of its own.
    """

    def __init__(self, names: Iterable[str], said: Mapping[str, str], stems: Mapping[str, str]):
        """stems: of the names whose stem is not simply the name without its last number."""
        self.names, self.said, self.stems = tuple(names), said, stems

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
        for what, groups in _differing_in_one(list(units)):
            shared = {stem: names for stem, names in groups.items() if len(names) > 1}
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
                f"{_settled(what, stems, whose)}"
            )
        return ""

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
    """Whether a case is called as its folder, which holds a number and is no part of a set, with a number behind it."""
    is_part = any(map(PACKED.fullmatch, re.findall(r"[^\W\d_]+", folder)))
    return bool(re.search(r"\d", folder) and re.fullmatch(rf"{re.escape(folder)}[_-]\d+", case)) and not is_part


def that_differ(folders: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The same folders of each case without those that all cases lie in at one depth, which part nobody."""
    common = {place for place, names in enumerate(zip(*folders.values(), strict=False)) if len({*names}) == 1}
    return {case: tuple(name for k, name in enumerate(its) if k not in common) for case, its in folders.items()}


def _is_number(folders: Sequence[str]) -> bool:
    """Whether a number that is no year is all that folders say, but for a side."""
    numbers = [name for name in folders if name.lower() not in SIDE_WORDS]
    return len(numbers) == 1 and numbers[0].isdecimal() and not YEAR.fullmatch(numbers[0])


def _differing_in_one(names: Sequence[str]) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """What may tell a patient's names apart -> the names by what stands beside it."""
    ends = (first[k:] for first in names[:1] for k in range(len(first)) if ENDING.match(first, k))
    end = next((end for end in ends if all(name.endswith(end) for name in names)), "")
    cut = {name: name.removesuffix(end) for name in names}
    bare = ((name, found[1] or found[2]) for name in names if (found := BARE.fullmatch(cut[name])))
    yield "last number", _grouped(bare)
    counted_words = _grouped((name, found[1]) for name in names if (found := COUNTED.fullmatch(cut[name])))
    few = max(map(len, counted_words.values()), default=0) <= FEW_CASES
    yield "last number", counted_words if few and len(counted_words) >= MANY_WORDS else {}
    yield "last date", _grouped((name, found[1]) for name in names if (found := DATED.fullmatch(name)))
    first = ((name, found[1] or found[2]) for name in names if (found := AT_FIRST.fullmatch(name)))
    yield "first word", _grouped(first)
    yield "last word", _by_words(cut)


def _settled(what: str, stems: Mapping[str, str], whose: Mapping[str, str]) -> str:
    """How to say whose the cases are, in words; stems: name -> its patient, where what is at the end does not count;
    whose: the same of all names, nobody else of whom may be joined or parted.
    """
    patient, known = next(iter(stems.values())), {*stems.values()}
    lengths, parts = {len(stem) for stem in known}, {len(re.findall("[_-]", stem)) for stem in known}
    patterns = [
        *{"last date": ("(.*?)[_-](?:19|20)",), "first word": ("^[^_ -]+[_ -](.*)",)}.get(
            what, ("(.*)[_-]", "(.*).$", r"(.*?)\W*\d+\W?$")
        ),
        *(f"^[^_-]+(?:[_-][^_-]+){{{count}}}" if count else "^[^_-]+" for count in sorted(parts)),
        *(f"^.{{{length}}}" for length in sorted(lengths)),
    ]
    for pattern in patterns:
        found = {name: match[match.re.groups] for name in whose if (match := re.search(pattern, name))}
        pairs = {(its, found.get(name)) for name, its in whose.items()}
        one_to_one = len(pairs) == len({*whose.values()}) == len({*found.values()})
        if len(found) == len(whose) and one_to_one and all(found[name] == stem for name, stem in stems.items()):
            return f"if {patient} is a patient, --patients '{pattern}' says so"
    return f'if {patient} is a patient, say so in dataset.json: "patients": {{"CASE": "PATIENT", ...}}'


def _grouped(stems: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """(name, stem) -> the names of each stem."""
    groups: dict[str, list[str]] = {}
    for name, stem in stems:
        groups.setdefault(stem, []).append(name)
    return groups


def _by_words(names: Mapping[str, str]) -> dict[str, list[str]]:
    """The names of each stem behind which a word stands that stands behind another too, as those of visits do.

    names: name -> the same without what all of them end in.
    """
    found = [
        (name, match[1] or match[3], match[2] or match[4])
        for name, cut in names.items()
        if (match := WORDED.fullmatch(cut))
    ]
    behind: dict[str, set[str]] = {}
    for _, stem, word in found:
        behind.setdefault(word, set()).add(stem)
    again = {stem for stems in behind.values() if len(stems) > 1 for stem in stems}
    return _grouped((name, stem) for name, stem, _ in found if stem in again)


def _parts(split: Mapping[str, Sequence[str]], groups: Iterable[Sequence[str]]) -> bool:
    """Whether a split has cases of one group on two sides."""
    side = {name: side for side, names in split.items() for name in names}
    return any(len({side[name] for name in group if name in side}) > 1 for group in groups)
