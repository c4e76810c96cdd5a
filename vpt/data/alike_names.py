"""What the names of cases say of whose they are: each name's stem, and what may tell the names of one patient apart."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from vpt.vocabulary import SIDE_WORDS

NUMBERED = (
    "frame|timepoint|time|tp|visit|vis|session|ses|run|rep|scan|echo|slice|slc|sl|week|month|wk|day|aug"
    "|year|yr|exam|study|view|series|acq|phase|level|core|roi|mr|mpr|followup|fu"
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
VIEWED = re.compile(r"(.*\d[^/]*)/\d+x/[^/]*", re.IGNORECASE)  # 14-22549AB/40X/1: a slide, in a magnification
BRATS = re.compile(r"((?:.*/)?BraTS-[A-Za-z]+-\d{5})-\d{3}", re.IGNORECASE)  # since 2023: the patient, a visit
DATED = re.compile(
    r"(.+?)[_ -](?:(?:19|20)\d\d([_. -]?)\d\d\2\d\d|\d\d?([_. -])\d\d?\3(?:19|20)\d\d)"  # 2020-02-01, 1.2.2020
)
DAY = r"(?:.*/)?(?:19|20)\d\d(?P<sign>[_.-]?)[01]\d(?P=sign)[0-3]\d"  # first in a name
BEHIND_DAY = r"\d{4}[_.-]?\d\d[_.-]?\d\d[_ -](.*)"
OF_A_DAY = re.compile(rf"(?P<day>{DAY})[_ -](?P<stem>.*\d.*)")  # 2021-03-04_0012
WHOSE = "patient|pat|subject|subj|sub|person|case|participant|id|pid"  # before a number that is a patient's
PERSON_FOLDER = re.compile(rf"(?:^|[/_-])((?:{WHOSE})[_-]?\d+)(?=[/_-])", re.IGNORECASE)  # patient1/study2/
PERSON = re.compile(r"/?(?:patient|pat|subject|subj|participant|person|proband|pt|p)[_ -]?\d+", re.IGNORECASE)
AT_FIRST = re.compile(  # left_P1, pre_P1, scan2_P1; siteA_P1, benign_P1 and train_P1 are of others
    rf"(?:{NAMED})[_ -](.*\d.*)|[^_ -]*\d[^_ -]*[_ -]((?:{WHOSE}|p|pt)[_-]?\d+)", re.IGNORECASE
)
BARE = re.compile(  # 001_002, person7_virus_13, case01.003, P01 (3), P01img3; no DICOM UID
    rf"(?![\d.]+$)(.*\d(?:[_-](?!(?:{WHOSE})[_-])[^\W\d_]+)*)(?:[_\-# ]+\d+|\.\d{{3,}}|[_ -]?\(\d+\))"
    rf"|(.*\d)(?:img|im|image|{LETTERS})\d+",
    re.IGNORECASE,
)
COUNTED = re.compile(r"([^\W\d_]+(?:[_\- ][^\W\d_]+)*)[_\-# ]+\(?\d+\)?")  # smith_3, JD-2, anna meier (1)
FOUND_BY = {  # what names differ in -> an expression of the patient beside it
    "last date": ("(.*?)[_-](?:19|20)",),
    "first date": (BEHIND_DAY,),
    "first word": ("^[^_ -]+[_ -](.*)",),
    "folder": ("[^/]*$",),
}
MANY_WORDS, FEW_CASES = 5, 9  # of so many words, with so few numbers each, these may be people; `ct_` and `mr_` are not
ENDING = re.compile(r"[_ -][^\W\d_][\w ]*$")  # P01_3_crop: of all names the same, it tells none apart
WORDED = re.compile(r"(.*\d.*)[_ -]([^_ -]*[^\W\d_][^_ -]*)|(.*\d)([a-dA-D])")  # a word, or a letter behind a number


def below_sides(name: str, classes: Collection[str]) -> str:
    """A name without the folders of a class or side at its start, since a patient can have slices of several."""
    parts = name.split("/")
    while len(parts) > 1 and (parts[0] in classes or parts[0].lower() in SIDE_WORDS):
        parts = parts[1:]
    return "/".join(parts)


def person_in(name: str) -> str:
    """The patient that a folder of a name, without those of a class or side, is called by; "" for none."""
    found = PERSON_FOLDER.search(name[: name.rfind("/") + 1])
    return found[1] if found else ""


def stem_of_name(name: str) -> str:
    """A name without what says which visit, side, frame or part it is; itself where nothing does."""
    found = BIDS.fullmatch(name) or BRATS.fullmatch(name) or VIEWED.fullmatch(name)
    return found[1] if found else REPEATED.sub("", name)


def differing_in_one(names: Sequence[str]) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """What may tell a patient's names apart -> the names by what stands beside it."""
    ends = (first[k:] for first in names[:1] for k in range(len(first)) if ENDING.match(first, k))
    end = next((end for end in ends if all(name.endswith(end) for name in names)), "")
    cut = {name: name.removesuffix(end) for name in names}
    bare = {name: found[1] or found[2] for name in names if (found := BARE.fullmatch(cut[name]))}
    of_days = _of_days(names)
    bare = {name: stem for name, stem in bare.items() if not (of_days and re.fullmatch(DAY, stem))}
    yield "last number", _grouped(_further(bare).items())
    counted_words = _grouped((name, found[1]) for name in names if (found := COUNTED.fullmatch(cut[name])))
    few = max(map(len, counted_words.values()), default=0) <= FEW_CASES
    yield "last number", counted_words if few and len(counted_words) >= MANY_WORDS else {}
    yield "last date", _grouped((name, found[1]) for name in names if (found := DATED.fullmatch(name)))
    yield "first date", of_days
    first = ((name, found[1] or found[2]) for name in names if (found := AT_FIRST.fullmatch(name)))
    yield "first word", _grouped(first)
    yield "last word", _by_words(cut)


def _further(stems: Mapping[str, str]) -> Mapping[str, str]:
    """Stems without what says a visit at their end, too (`P1_MR1` of `P1_MR1_001`), where several patients remain."""
    found = {name: stem_of_name(stem) for name, stem in stems.items()}
    several = len({*found.values()}) > 1
    return found if several and all(any(map(str.isdigit, stem)) for stem in found.values()) else stems


def settled(what: str, stems: Mapping[str, str], whose: Mapping[str, str]) -> str:
    """How to say whose the cases are, in words; stems: name -> its patient, where what is at the end does not count;
    whose: the same of all names, nobody else of whom may be joined or parted.
    """
    patient, known = next(iter(stems.values())), {*stems.values()}
    lengths, parts = {len(stem) for stem in known}, {len(re.findall("[_-]", stem)) for stem in known}
    patterns = [
        *FOUND_BY.get(what, ("(.*)[_-]", "(.*).$", r"(.*?)\W*\d+\W?$")),
        *(f"^[^_-]+(?:[_-][^_-]+){{{count}}}" if count else "^[^_-]+" for count in sorted(parts)),
        *("([^/]*)[_-][^/]*$", r"([^/]*?)\W*\d+\W?$"),  # without the folders of classes and sides
        *(f"([^/_-]+(?:[_-][^/_-]+){{{count}}})[^/]*$" for count in sorted(parts)),
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


def _of_days(names: Sequence[str]) -> dict[str, list[str]]:
    """The names of each stem behind a day (`2021-03-04_0012`), unless these are numbers that count from one each day,
    as slices do.
    """
    found = [(name, match["day"], match["stem"]) for name in names if (match := OF_A_DAY.fullmatch(name))]
    on = _grouped((stem, day) for _, day, stem in found)
    count = all(all(map(str.isdecimal, its)) and {*map(int, its)} <= {*range(len(its) + 1)} for its in on.values())
    return {} if count else _grouped((name, stem) for name, _, stem in found)


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
