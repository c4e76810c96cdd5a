"""Cases of BIDS, which parts a case's sequences into folders: `anat/` and `dwi/` of one subject and session."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vpt.data.cases import case_name
from vpt.data.ids_in_names import DERIVATIVES
from vpt.data.layouts.bids_files import DATATYPES, MASKS
from vpt.use.archives.named_channels import by_channel_names


class Parts(NamedTuple):
    """Files by the folder that their cases' names begin with; which of these hold those of several folders as one; and
    sequences that a model has no channel for, beside a whole case in another folder.
    """

    by_folder: dict[str, list[Path]]
    joined: set[str]
    others: list[Path]


def without_derived_masks(files: Sequence[tuple[str, Path]]) -> tuple[Sequence[tuple[str, Path]], list[Path]]:
    """The scans, each with the folder that its name begins with, and masks in `derivatives/` beside raw subjects."""
    of_subjects = [(prefix, file) for prefix, file in files if file.name.startswith("sub-")]
    derived = {file for prefix, file in of_subjects if DERIVATIVES in prefix.split("/")}
    masks = {file for file in derived if MASKS.intersection(case_name(file).lower().split("_")[1:])}
    if len(derived) == len(of_subjects) or not masks:
        return files, []
    return [(prefix, file) for prefix, file in files if file not in masks], sorted(masks)


def join_datatypes(by_folder: Mapping[str, list[Path]], channels: Sequence[str]) -> Parts:
    """Folders of one session joined where no one of them holds a whole case by the channels' names, and all do."""
    found = Parts(dict(by_folder), set(), [])
    sessions: dict[str, list[str]] = defaultdict(list)
    for prefix in by_folder:
        above, _, folder = prefix.rstrip("/").rpartition("/")
        if folder in DATATYPES:
            sessions[f"{above}/" if above else ""].append(prefix)
    for session, parts in sessions.items():
        files = [file for part in parts for file in by_folder[part]]
        named = by_channel_names(files, channels) if len(parts) > 1 and session not in by_folder else None
        if named is None or not named.cases:
            continue
        whole = any({*own} <= {*by_folder[part]} for own in named.cases.values() for part in parts)
        found.others.extend(named.others if whole else [])
        for part in parts:
            own = found.by_folder.pop(part)
            left = [file for file in own if not (whole and file in named.others)]
            if left:
                found.by_folder.setdefault(part if whole else session, []).extend(left)
        found.joined.update(set() if whole else {session})
    return found
