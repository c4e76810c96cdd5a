"""Which of the scored cases a dataset.json means by a name, since it may call them as their files or by their ids."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from vpt.data.cases import case_name, without_ending, without_suffix
from vpt.data.ids_in_names import SEQUENCES, id_of
from vpt.data.layouts.naming import words_of
from vpt.errors import VptError
from vpt.use.evaluation.pairs import Pair
from vpt.words import did_you_mean, listed

Said = TypeVar("Said")


def said_of_cases(said: Mapping[str, Said], cases: Mapping[str, str], file: Path) -> dict[str, Said]:
    """What a dataset.json says of names -> the same of cases; cases: as `cases_meant` has them.

    Raises VptError where two names are of one case and different things are said of them.
    """
    first: dict[str, str] = {}
    for name, case in cases.items():
        other = first.setdefault(case, name)
        if said[other] != said[name]:
            raise VptError(
                f"{file}: {other!r} and {name!r} both are the case {case}, and it says different things of them; keep "
                "one of the two"
            )
    return {case: said[name] for case, name in first.items()}


def cases_meant(names: Iterable[str], pairs: Sequence[Pair], missing: Collection[str]) -> dict[str, str]:
    """Of names those of references -> what these cases are called, the missing ones among them.

    By the case's name or its reference's, also with a file's ending; else by the id in that, if it is one case's alone
    and the two do not name different sequences. A name with a folder is that of a case in such a folder.

    missing: the cases that were not predicted.
    """
    known = {pair.case: pair.reference.name for pair in pairs} | {name: name.rpartition("/")[2] for name in missing}
    exact = _of_one((own, case) for case, own in known.items()) | {case: case for case in known}
    by_id = _of_one((_id(each), case) for case, own in known.items() for each in (case, own))
    found = {}
    for name in names:
        plain = without_ending(name)
        case = exact.get(name, exact.get(plain))
        if case is None:
            case = by_id.get(_id(plain))
            if case is None or _differ(_sequences(plain), _sequences(known[case])):
                continue
        found[name] = case
    return found


def require_there(names: Collection[str], file: Path, known: Collection[str]) -> None:
    """Refuse names that `annotated` in a dataset.json has and nothing beside it or in its folders: a slip hides a case.

    known: the cases whose names they are not.
    """
    below = [path for path in file.parent.iterdir() if path.is_dir()] if names else []
    own_ids = {id_of(case.rpartition("/")[2]) for case in known}
    there: dict[Path, tuple[set[str], set[str]]] = {}
    for name in names:
        folder, own = Path(name).parent, case_name(name)
        if folder not in there:
            places = [*([file.parent] if folder == Path() else []), *(place / folder for place in below)]
            paths = [path for place in places if place.is_dir() for path in place.iterdir()]
            called = {each for path in paths for each in (case_name(path), without_suffix(path))}
            there[folder] = called, {*map(id_of, called)} - own_ids
        called, ids = there[folder]
        if own not in called and id_of(own) not in ids:
            alike = [case for case in known if id_of(case.rpartition("/")[2]) == id_of(own)]
            why = f"may be {listed(alike, 3)}; write it as that is called"
            if not alike:
                why = f"is not there{did_you_mean(name, known) or '; correct it, or take it out'}"
            raise VptError(f"{file}: `annotated` names the case {name!r}, which {why}")


def _of_one(named: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Name -> case, of names that are one case's alone."""
    cases: dict[str, set[str]] = defaultdict(set)
    for name, case in named:
        cases[name].add(case)
    return {name: next(iter(each)) for name, each in cases.items() if len(each) == 1}


def _id(name: str) -> str:
    folder, between, own = name.rpartition("/")
    return folder + between + id_of(own)


def _sequences(name: str) -> set[str]:
    """The words of a name that say how a scan was taken."""
    return SEQUENCES & {*words_of(name)}


def _differ(one: set[str], other: set[str]) -> bool:
    return bool(one and other and one != other)
