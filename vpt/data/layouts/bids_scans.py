"""Which scans a mask of BIDS is of: of its subject and session, in its own folder or raw."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vpt.data.cases import kind_of
from vpt.data.layouts.bids_files import DATATYPES, OF_A_CASE, BidsFile
from vpt.errors import VptError
from vpt.readers import reader_of
from vpt.words import listed

STILL = {"anat", "dwi", "perf", "pet"}  # datatypes, of which a 3-D file may be a channel

Sequences = dict[str, dict[str, BidsFile]]  # case -> sequence -> its scan


@dataclass(frozen=True)
class BidsMask:
    """A mask: of which scan its name says it is, "" where it does not, and the kind that is left of its name.

    label: what `label-` says, without which the kinds of two masks may be the same.
    """

    file: BidsFile
    scan: str
    kind: str
    label: str

    @property
    def case(self) -> str:
        """Subject, session, run and split, or the scan's whole name."""
        own = [word for word in self.file.words if word.partition("-")[0] in OF_A_CASE]
        return self.scan or "_".join(own)


Masks = Mapping[str, Sequence[BidsMask]]  # case -> its masks


def sequences_of(masks: Masks, scans: Sequence[BidsFile], problems: list[VptError]) -> tuple[Sequences, list[str]]:
    """The scans of every case that has all sequences, and the sequences that lie on another grid than the masks.

    Of these, where others lie on it in every case, nothing is read but their headers. Raises VptError where no case
    has its scans.
    """
    chosen = _scans_of(masks, scans, problems)
    found = _with_others(masks, _sequences(chosen), chosen, scans)
    elsewhere = _on_another_grid(masks, found)
    found = {case: {name: its[name] for name in its if name not in elsewhere} for case, its in found.items()}
    whole = _whole(found, problems)
    if not whole:
        raise problems[0]
    return whole, elsewhere


def _scans_of(masks: Masks, scans: Sequence[BidsFile], problems: list[VptError]) -> dict[str, list[BidsFile]]:
    """Case -> the scans that its mask is of."""
    by_subject = _by_subject(scans)
    found = {}
    for case, its in masks.items():
        mask = its[0]
        among = [scan for scan in by_subject[mask.file.subject] if _fits(mask, scan)]
        own = [scan for scan in among if scan.path.parent == mask.file.path.parent]
        chosen = own or [scan for scan in among if not scan.pipeline]
        if space := mask.file.entities.get("space"):
            chosen = [scan for scan in chosen if scan.entities.get("space") == space] or chosen
        else:
            chosen = [scan for scan in chosen if "space" not in scan.entities] or chosen
        if not mask.file.datatype:
            chosen = [scan for scan in chosen if scan.datatype == "anat"] or chosen
        if not chosen:
            problems.append(VptError(f"{mask.file.path}: a mask without a scan by its name; add it, or take it out"))
        elif repeated := _repeated(chosen):
            text = f"{mask.file.name} is of one of {listed(repeated, 4)}, and does not say of which; rename it"
            problems.append(VptError(f"{mask.file.path}: {text}, {_choose(chosen[0], repeated[0])}"))
        else:
            found[case] = chosen
    return found


def _by_subject(scans: Sequence[BidsFile]) -> dict[str, list[BidsFile]]:
    found: dict[str, list[BidsFile]] = defaultdict(list)
    for scan in scans:
        found[scan.subject].append(scan)
    return found


def _with_others(
    masks: Masks, found: Sequences, chosen: Mapping[str, Sequence[BidsFile]], scans: Sequence[BidsFile]
) -> Sequences:
    """The same with what lies in a subject's other folders (`dwi/` beside `anat/`), where masks name neither: what all
    cases have once, of one channel, on the mask's grid.
    """
    others: Sequences = {}
    by_subject = _by_subject(scans)
    for case, its in chosen.items():
        mask, known = masks[case][0], {scan.datatype for scan in its}
        if mask.scan or mask.file.datatype or any(scan.pipeline for scan in its):
            return found
        among = [scan for scan in by_subject[mask.file.subject] if not scan.pipeline and _fits(mask, scan)]
        among = [scan for scan in among if scan.datatype in STILL - known]
        often = Counter(scan.suffix for scan in among)
        others[case] = {scan.suffix: scan for scan in among if often[scan.suffix] == 1}
    shared = set.intersection(*({*its} for its in others.values())) if others else set()
    try:
        on_grid = [
            name
            for name in sorted(shared)
            if all(name not in found[case] and _is_beside(its[name], masks[case][0]) for case, its in others.items())
        ]
    except VptError:  # reading the case says why
        return found
    return {case: {**its, **{name: others[case][name] for name in on_grid}} for case, its in found.items()}


def _is_beside(scan: BidsFile, mask: BidsMask) -> bool:
    """Whether it is one channel on the mask's grid, by the headers."""
    read = reader_of(scan.path)
    return read.count_channels(exact=False) == 1 and read.grid().matches(reader_of(mask.file.path).grid())


def _repeated(scans: Sequence[BidsFile]) -> list[str]:
    """Sessions, else runs, where there are several among the scans of one mask."""
    for key in OF_A_CASE[1:]:
        values = sorted({scan.entities[key] for scan in scans if key in scan.entities})
        if len(values) > 1:
            return [f"{key}-{value}" for value in values]
    return []


def _choose(scan: BidsFile, word: str) -> str:
    """How dataset.json names the scans that count, such as those of a run or sequence."""
    after = "*" if word != scan.suffix else ""
    pattern = f"*_{word}{after}{scan.path.name[len(scan.name) :]}"
    return f'or name the scans that count in dataset.json: "bids": {{"scans": "{pattern}"}}'


def _fits(mask: BidsMask, scan: BidsFile) -> bool:
    """Whether no entity that both have differs, and it is the scan that the mask is named after."""
    if kind_of(scan.path) != kind_of(mask.file.path):  # a picture beside a volume's mask shows how it looks
        return False
    if mask.scan:
        return scan.name == mask.scan
    if mask.file.datatype in DATATYPES and scan.datatype not in ("", mask.file.datatype):
        return False
    ours, theirs = mask.file.entities, scan.entities
    return all(ours[key] == theirs[key] for key in ours.keys() & theirs.keys() - {"desc", "space", "label", "res"})


def _sequences(scans: Mapping[str, Sequence[BidsFile]]) -> Sequences:
    """Case -> sequence -> its scan: called by the suffix where that tells all of a case apart, else by all words."""
    plain = all(len({scan.suffix for scan in found}) == len(found) for found in scans.values())
    return {
        case: {scan.suffix if plain else scan.without(*OF_A_CASE[:2]): scan for scan in found}
        for case, found in scans.items()
    }


def _on_another_grid(masks: Masks, found: Sequences) -> list[str]:
    """Sequences that nowhere lie on their mask's grid, where all others everywhere do; none where headers are damaged.

    Raw T1w and FLAIR of a subject have grids of their own, and a mask is drawn on one of them.
    """
    if max(map(len, found.values()), default=0) < 2:
        return []
    lie: dict[str, set[bool]] = defaultdict(set)
    try:
        for case, its in found.items():
            grid = reader_of(masks[case][0].file.path).grid()
            for name, scan in its.items():
                lie[name].add(reader_of(scan.path).grid().matches(grid))
    except VptError:  # reading the case says why
        return []
    elsewhere = [name for name in sorted(lie) if lie[name] == {False}]
    return elsewhere if len(elsewhere) < len(lie) and all(len(each) == 1 for each in lie.values()) else []


def _whole(found: Sequences, problems: list[VptError]) -> Sequences:
    """The cases that have all sequences, and a problem for each other."""
    sequences = sorted({name for its in found.values() for name in its})
    often = Counter(name for its in found.values() for name in its)
    whole = {}
    for case, its in found.items():
        if missing := [name for name in sequences if name not in its]:
            some = its[max(its, key=lambda name: often[name])]
            problems.append(
                VptError(
                    f"{some.path}: {case} has the scans {listed(its, 8)}, but not {listed(missing, 8)}, which other "
                    f"cases have; add it, take the case out, {_choose(some, some.suffix)}"
                )
            )
        else:
            whole[case] = its
    return whole
