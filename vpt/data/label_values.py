"""What the values in label files stand for: each a label of its own, or merged, dropped and ignored ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from vpt.errors import VptError
from vpt.words import listed

IGNORE, BACKGROUND, OTHERS = "ignore", "background", "others"
IGNORED = -1  # the class of voxels that count neither in the loss nor in scores

Claim = int | str | Sequence[int | str]
"""A value, the name that it has now, several of them, or `others`: all that no other name claims."""


def require_plain_name(name: str, where: object) -> None:
    """Refuse a label without a name, and one that is `background` or `ignore` but for its capitals or blanks."""
    if not name.strip():
        raise VptError(f"{where}: a label without a name; name it")
    meant = name.strip().casefold()
    if meant in (BACKGROUND, IGNORE) and name != meant:
        raise VptError(
            f"{where}: {name!r} would be a label like others; write `{meant}`, if it is that, or another name"
        )


def require_no_negative(ids: Collection[int], where: object) -> None:
    """Refuse ids below 0, which stand for nothing here: neither a label nor what is to be ignored."""
    if error := negative(ids, where):
        raise error


def negative(ids: Collection[int], where: object) -> VptError | None:
    """What is said of ids below 0; None where there are none."""
    if not (low := sorted(id for id in ids if id < 0)):
        return None
    return VptError(
        f"{where}: holds {listed(low, 3)}, expected label ids of 0 and above; write what shall not count with a value "
        "that no label has (such as 255) and call that `ignore` under `labels`, or the background as 0"
    )


@dataclass(frozen=True)
class LabelValues:
    """Value in a file -> what it is called, sorted, with 0, the background.

    Values of one name are one label, those of the background's name are dropped, those called `ignore` do not count.
    """

    names: dict[int, str]

    @cached_property
    def by_name(self) -> dict[str, list[int]]:
        """Name -> its values."""
        found: dict[str, list[int]] = {}
        for value, name in sorted(self.names.items()):
            found.setdefault(name, []).append(value)
        return found

    @property
    def labels(self) -> dict[int, str]:
        """Id -> name; a label's id is the lowest of its values, so the background's is 0."""
        return {values[0]: name for name, values in self.by_name.items() if name != IGNORE}

    @property
    def ids(self) -> tuple[tuple[int, int], ...]:
        """Every value and the id that it becomes; those to ignore become the lowest of them."""
        return tuple((value, self.by_name[name][0]) for value, name in self.names.items())

    @property
    def ignored(self) -> int | None:
        """The id of voxels that do not count."""
        return self.by_name[IGNORE][0] if IGNORE in self.by_name else None

    @property
    def is_plain(self) -> bool:
        """Whether every value is a label of its own."""
        return len(self.by_name) == len(self.names) and IGNORE not in self.by_name

    def read_as(self, claims: Mapping[str, Claim], where: str) -> LabelValues:
        """The same values, those that are claimed under their new names; others keep theirs.

        where: what a sentence about the claims begins with. Raises VptError for values that the labels do not have, one
        that two names claim, a name that unclaimed values have, and where no label is left.
        """
        claimed: dict[int, str] = {}
        for name, claim in claims.items():
            require_plain_name(name, where)
            for value in () if self._is_rest(claim) else self._claimed(name, claim, where):
                if claimed.setdefault(value, name) != name:
                    raise VptError(f"{where}: {claimed[value]} and {name} both name {value}; every value is one label")
        if len(rest := [name for name, claim in claims.items() if self._is_rest(claim)]) > 1:
            raise VptError(f"{where}: {listed(rest)} are all `{OTHERS}`; only one name can have what is left")
        unclaimed = {value: name for value, name in self.names.items() if value not in claimed}
        if rest:
            unclaimed = {value: name if value == 0 else rest[0] for value, name in unclaimed.items()}
        self._require_distinct(claims, {value: name for value, name in unclaimed.items() if not rest}, where)
        background = self.names[0]
        found = {value: background if name == BACKGROUND else name for value, name in {**unclaimed, **claimed}.items()}
        read = LabelValues(dict(sorted(found.items())))
        if len(read.labels) == 1:
            raise VptError(f"{where}: no label is left, all is {background} or ignored; leave one to be learned")
        return read

    def absent(self, stored: Collection[int]) -> list[str]:
        """Sentences about values that are merged, dropped or ignored, and are not among those that the files hold."""
        held = listed(sorted(stored), 20)
        return [
            f"label {value} ({name}) is in no file, they hold {held}; correct `labels`"
            for value, name in self.names.items()
            if value not in {0, *stored, *self.labels}
        ]

    def __str__(self) -> str:
        """`1, 2 are liver (1); 7 is background; 255 is ignored`: what is not as the files have it."""
        said = []
        for name, values in self.by_name.items():
            told = [value for value in values if value != 0]
            verb = "is" if len(told) == 1 else "are"
            if name == IGNORE:
                said.append(f"{listed(told, 8)} {verb} ignored")
            elif len(values) > 1:
                said.append(f"{listed(told, 8)} {verb} {name}{f' ({values[0]})' if values[0] else ''}")
        return "; ".join(said)

    def _is_rest(self, claim: Claim) -> bool:
        return claim == OTHERS and OTHERS not in self.by_name

    def _claimed(self, name: str, claim: Claim, where: str) -> list[int]:
        values = []
        if not isinstance(claim, int | str) and not claim:
            raise VptError(f"{where}: {name} names no value; give it one, or leave it out")
        for part in [claim] if isinstance(claim, int | str) else claim:
            found = self.by_name.get(str(part)) or [value for value in self.names if str(value) == str(part)]
            if not found:
                known = listed((f"{value} ({known})" for value, known in self.names.items()), 20)
                raise VptError(f"{where}: {name} names {part}, which the files do not hold; they hold {known}")
            values += found
        if 0 in values and name not in (BACKGROUND, self.names[0]):
            raise VptError(
                f"{where}: {name} names 0, which is the background; write other labels with values from 1 on"
            )
        return values

    def _require_distinct(self, claims: Mapping[str, Claim], unclaimed: Mapping[int, str], where: str) -> None:
        kept = {name: value for value, name in unclaimed.items()}
        for name in claims:
            if name in kept and name not in (BACKGROUND, IGNORE, self.names[0]):
                raise VptError(
                    f"{where}: {kept[name]} is called {name} too; name it as well to merge both, or choose another name"
                )
