"""Which cases to trust without their truth: scores of quality, limits of what is usual, and risk against coverage."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from vpt.scores.means import mean_defined
from vpt.scores.plain import plain
from vpt.words import counted

TRUST = ("agreement", "entropy", "distance")
FALLING = frozenset({"agreement"})  # less of it is more doubtful
EMPTY = "empty"
SHARE = 0.95  # of ordinary cases, that a limit is to hold


@dataclass(frozen=True)
class StructureQuality:
    """Of one label, or of all: voxels that were found, how far the members agree, how unsure their mean is there.

    agreement: see `pairwise_dice`; entropy: of the mean probability, 1 where all
    labels are as likely, averaged over what was found, NaN where that is nothing.
    """

    voxels: int
    agreement: float = math.nan
    entropy: float = math.nan


@dataclass(frozen=True)
class Quality:
    """Of a case without its truth. whole: its agreement is the mean over labels that a member found, its entropy that
    of all they found.

    distance: to the nearest training cases, 1 where it is as theirs among each other; NaN where the model kept none.
    """

    whole: StructureQuality
    structures: Mapping[str, StructureQuality]
    distance: float = math.nan

    def of_case(self) -> dict[str, float]:
        """The value of each of TRUST."""
        return {"agreement": self.whole.agreement, "entropy": self.whole.entropy, "distance": self.distance}

    def of_structure(self, name: str) -> dict[str, float]:
        """The scores of one label; the distance is the case's."""
        found = self.structures[name]
        return {"agreement": found.agreement, "entropy": found.entropy, "distance": self.distance}


def pairwise_dice(sizes: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Voxels (M, K) of M members' masks of K labels, and those that each pair shares (M (M - 1) / 2, K), pairs in the
    order of `combinations` -> the mean Dice of the pairs (K,).

    Two empty masks have nothing to agree on, as their entropy has nothing to be of, and do not count; NaN where all are
    empty, and of a single member.
    """
    pairs = list(combinations(range(len(sizes)), 2))
    both = np.array([sizes[a] + sizes[b] for a, b in pairs]).reshape(len(pairs), sizes.shape[1])
    return mean_defined(np.divide(2 * shared, both, out=np.full(both.shape, math.nan), where=both > 0), 0)


# --- limits -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    """The last value of each score that is usual, by validation cases; what lies beyond is flagged.

    case: of whole cases, score -> limit; structures: likewise of each label; empty: names of the labels of which some
    validation case was given nothing; empty_case: whether one was given nothing at all; cases: how many there were;
    flagged: the share of them that the limits of whole cases flag themselves.
    """

    case: Mapping[str, float]
    structures: Mapping[str, Mapping[str, float]]
    empty: tuple[str, ...]
    empty_case: bool
    cases: int
    flagged: float = 0.0

    @property
    def mark(self) -> str:
        """The same for the same limits alone."""
        return hashlib.sha256(json.dumps(plain(self), sort_keys=True).encode()).hexdigest()[:12]

    def of_case(self, quality: Quality) -> tuple[str, ...]:
        """The scores in which a case is beyond what is usual; EMPTY where nothing was found, which never happened."""
        nothing = (EMPTY,) if not quality.whole.voxels and not self.empty_case else ()
        return (*_beyond(quality.of_case(), self.case), *nothing)

    def of_structure(self, quality: Quality, name: str) -> tuple[str, ...]:
        """The scores in which a label is beyond what is usual; the distance is the case's."""
        nothing = (EMPTY,) if not quality.structures[name].voxels and name not in self.empty else ()
        return (*_beyond(quality.of_structure(name), self.structures.get(name, {})), *nothing)


def choose_limits(qualities: Sequence[Quality]) -> Limits:
    """Of validation cases. A new case of their kind is beyond one limit with a chance of 1 - SHARE, of fewer than 19
    of them of 1 / (cases + 1): the order statistic of split conformal prediction.
    """
    names = list(qualities[0].structures)
    limits = Limits(
        _limits([quality.of_case() for quality in qualities]),
        {name: _limits([q.of_structure(name) for q in qualities], ("agreement", "entropy")) for name in names},
        tuple(name for name in names if not all(q.structures[name].voxels for q in qualities)),
        not all(quality.whole.voxels for quality in qualities),
        len(qualities),
    )
    return replace(limits, flagged=float(np.mean([bool(limits.of_case(quality)) for quality in qualities])))


def _limits(values: Sequence[Mapping[str, float]], scores: Iterable[str] = TRUST) -> dict[str, float]:
    """The limit of each score, without scores that no case has."""
    found = {}
    for score in scores:
        if doubts := sorted(doubt_of(score, each[score]) for each in values if math.isfinite(each[score])):
            rank = min(len(doubts), math.ceil(SHARE * (len(doubts) + 1)))
            found[score] = abs(doubts[rank - 1])
    return found


def _beyond(values: Mapping[str, float], limits: Mapping[str, float]) -> tuple[str, ...]:
    """NaN is beyond nothing."""
    known = [score for score in TRUST if score in limits]
    return tuple(score for score in known if doubt_of(score, values[score]) > doubt_of(score, limits[score]))


def doubt_of(score: str, value: float) -> float:
    """The larger, the less a case is to be trusted."""
    return -value if score in FALLING else value


def described(quality: Quality, limits: Limits | None) -> dict[str, Any]:
    """As JSON has it. `beyond`: scores beyond their limit, None without limits; `limits`: which these are."""

    def told(found: StructureQuality, beyond: tuple[str, ...]) -> dict[str, Any]:
        return {**plain(found), "beyond": None if limits is None else list(beyond)}

    return {
        "case": {**told(quality.whole, limits.of_case(quality) if limits else ()), "distance": plain(quality.distance)},
        "structures": {
            name: told(found, limits.of_structure(quality, name) if limits else ())
            for name, found in quality.structures.items()
        },
        "limits": limits and limits.mark,
    }


COLUMNS = ("case", "structure", "voxels", "agreement", "entropy", "distance", "flag", "beyond")
WHOLE = "(case)"


def quality_csv(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Case -> what `described` gave -> a row for each case and one for each of its structures; unknown is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for case, quality in found.items():
        distance = quality["case"]["distance"]
        for name, row in ((WHOLE, quality["case"]), *quality["structures"].items()):
            beyond = row["beyond"]
            numbers = ("" if each is None else f"{each:.6g}" for each in (row["agreement"], row["entropy"], distance))
            flag = "" if beyond is None else "yes" if beyond else "no"
            writer.writerow([case, name, row["voxels"], *numbers, flag, " ".join(beyond or ())])
    return text.getvalue()


def flags_told(table: str) -> str:
    """What `quality_csv` wrote -> `flags_in_words` of it; "" where nothing was judged."""
    rows = [row for row in csv.DictReader(io.StringIO(table)) if row["flag"]]
    flagged = {row["case"] for row in rows if row["flag"] == "yes"}
    whole = {row["case"] for row in rows if row["flag"] == "yes" and row["structure"] == WHOLE}
    return flags_in_words(len(whole), len(flagged - whole)) if rows else ""


def flags_in_words(whole: int, of_labels: int) -> str:
    """ "6 scans flagged, and of 2 more a label alone"."""
    return f"{counted(whole, 'scan')} flagged" + (f", and of {of_labels} more a label alone" if of_labels else "")
