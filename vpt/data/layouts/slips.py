"""Words of a dataset.json that nothing reads and that are meant for one that is: refused, so that none is lost."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from vpt.data.label_values import IGNORE
from vpt.data.layouts.regions import ORDER
from vpt.errors import VptError
from vpt.vocabulary import SIDE_WORDS

READ: dict[str, tuple[type, ...]] = {  # a word -> what may stand there: a word like it that says else is another's
    "labels": (dict,),
    "channel_names": (dict, list),
    "training": (list,),
    "patients": (dict,),
    "annotated": (dict,),
    "codes": (dict,),
    "pairs": (dict,),
    "bids": (dict,),
    ORDER: (list,),
}
LIKE = 0.85  # of a slip; `testing` is as near as 0.8 to `training`
CALLED_PATIENTS = ("subjects", "patient_ids", "subject_ids")
CALLED_IGNORE = ("ignore", "ignore_label", "ignore_index")
CALLED_SPLIT = ("split", "splits")


def refuse_slips(content: Mapping[str, Any], source: Path) -> None:
    """Raise VptError for the first word that is nearly one of those that are read, where that one is not there, or that
    says what stands elsewhere: the sides, a label to ignore.
    """
    for word, value in content.items():
        meant = _meant(word)
        if meant and meant not in content and isinstance(value, READ[meant]):
            raise VptError(f"{source}: nothing reads `{word}`; did you mean `{meant}`?")
        if word.casefold() in CALLED_IGNORE and type(value) is int and not _is_ignored(value, content):
            raise VptError(
                f'{source}: nothing reads `{word}`; write it among the labels, "labels": {{"{IGNORE}": {value}, ...}}, '
                "or take it out"
            )
        if word.casefold() in CALLED_SPLIT and isinstance(value, dict) and _lists_cases(value):
            raise VptError(f"{source}: nothing reads `{word}` here; write the sides into split.json, or take it out")


def _is_ignored(label: int, content: Mapping[str, Any]) -> bool:
    """Whether `labels` says so too, or no mask can hold that number."""
    labels = content.get("labels")
    return label < 0 or (isinstance(labels, dict) and (labels.get(IGNORE) == label or labels.get(str(label)) == IGNORE))


def _lists_cases(sides: Mapping[str, Any]) -> bool:
    """Whether a side has cases, and is no count or share of them."""
    return any(word in SIDE_WORDS and isinstance(value, list) for word, value in sides.items())


def _meant(word: str) -> str:
    """The word that another is a slip of, in capitals, its plural or a letter or two; "" for none."""
    plain = word.casefold().replace(" ", "_").replace("-", "_")
    if plain in CALLED_PATIENTS:
        return "patients"
    return next(iter(get_close_matches(plain, READ, 1, LIKE)), "")
