"""The header of an artifact, which may be cut off, edited, or written by another version: doubted, then believed."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vpt.data.familiar import Familiar
from vpt.data.plan import Plan
from vpt.data.postprocess import Step
from vpt.errors import VptError, VptWarning
from vpt.files import Repeated, unrepeated
from vpt.vocabulary import LARGEST_ID, Decision
from vpt.words import listed

MOST_PARAMETERS, LONGEST_VERSION = 10**15, 200
COLDEST, HOTTEST = 1e-4, 1e4  # temperatures beyond make every answer certain, or none


class BackboneHeader(BaseModel):
    """`pool`: the encoder's way to one vector, None before version 0.2.0.

    `origin`, `licence`: whose the weights are, None where there are none or it was not recorded yet.
    """

    model_config = ConfigDict(extra="allow")
    name: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    preprocessing: dict[str, Any] = {}
    pool: str | None = None
    origin: str | None = None
    licence: str | None = None


class TaskHeader(BaseModel):
    """What stands in an artifact of one task besides its tensors; see `vpt.artifact.Artifact`."""

    model_config = ConfigDict(extra="allow")
    config: dict[str, Any]
    plan: dict[str, Any]
    labels: dict[int, str]
    backbone: BackboneHeader
    versions: dict[str, Annotated[str, Field(max_length=LONGEST_VERSION)]]
    scores: dict[str, dict[str, float | None]]
    counts: dict[str, Annotated[int, Field(ge=0, le=MOST_PARAMETERS)]]
    temperature: float = 1.0
    codes: dict[str, tuple[str, str, str]] = {}
    postprocess: dict[int, tuple[Step, ...]] = {}
    decision: Decision = "likeliest"
    familiar: dict[str, Any] | None = None


class EarlierHeader(TaskHeader):
    """The header of a task that was learned before: its name as well."""

    task: str = Field(min_length=1)


class Header(TaskHeader):
    """An artifact's whole header: its own task, and those that were learned before, in their order."""

    earlier: tuple[EarlierHeader, ...] = ()


def read_header(text: str | None, path: Path) -> Header:
    """The header's text -> its content.

    Raises:
        VptError: no JSON, a key that is missing or of another kind, a temperature that divides nothing.
    """
    try:
        content = json.loads(text or "", object_pairs_hook=unrepeated)
        json.dumps(content, ensure_ascii=False).encode()  # half a character could not be shown
    except (ValueError, RecursionError) as error:  # a number with thousands of digits is a ValueError
        what = str(error) if isinstance(error, Repeated) else "no JSON"
        raise VptError(
            f"{path}: its header is damaged ({what}); copy the file again from where it was trained"
        ) from error
    try:
        header = Header.model_validate(content)
    except ValidationError as error:
        keys = listed(sorted({".".join(map(str, problem["loc"])) or "all of it" for problem in error.errors()}))
        raise VptError(
            f"{path}: its header is damaged, or of another version{_writer(content)}: {keys} is missing or not what "
            "was expected; copy the file again, or use the version that wrote it"
        ) from error
    for each in (header, *header.earlier):
        _require_whole(each, path)
        _warn_of_unknown(each, path)
    tasks = [each.task for each in header.earlier]
    if len(set(tasks)) < len(tasks):
        raise VptError(f"{path}: its header is damaged: it names a task twice; copy the file again")
    return header


def _require_whole(header: TaskHeader, path: Path) -> None:
    if not COLDEST <= header.temperature <= HOTTEST:  # NaN neither
        raise VptError(f"{path}: its header is damaged: temperature {header.temperature}; copy the file again")
    if missing := [part for part in ("trained", "frozen") if part not in header.counts]:
        raise VptError(f"{path}: its header is damaged: no count of {missing[0]} parameters; copy the file again")
    if not header.labels:
        raise VptError(f"{path}: its header is damaged: it names no labels; copy the file again")
    if odd := _odd_label(header.labels):
        raise VptError(f"{path}: its header is damaged: {odd}; copy the file again")
    if unknown := header.postprocess.keys() - {label for label in header.labels if label > 0}:
        raise VptError(
            f"{path}: its header is damaged: post-processing of {min(unknown)}, which is no label; copy the file again"
        )


def _odd_label(labels: dict[int, str]) -> str:
    if least := min(labels):
        return f"its labels begin with {least}, expected 0"
    if (most := max(labels)) > LARGEST_ID:
        return f"label {most}, expected ids up to {LARGEST_ID}"
    if nameless := [id for id, name in labels.items() if not name.strip()]:
        return f"label {nameless[0]} has no name"
    names = list(labels.values())
    return next((f"two labels are called {name}" for name in names if names.count(name) > 1), "")


def _warn_of_unknown(header: TaskHeader, path: Path) -> None:
    """Entries that this version does not know may change what the trained numbers mean."""
    if unknown := sorted(header.model_extra or {}):
        written, own = header.versions.get("vpt", "of an unknown number"), version("vpt")
        mend = "update vpt" if is_newer(header.versions) else "compare it with the original"
        warnings.warn(
            f"{path}: its header (vpt {written}) holds {listed(unknown, 3)}, which this version ({own}) does not know "
            f"and leaves aside; {mend}",
            VptWarning,
            stacklevel=4,
        )


def read_plan(header: TaskHeader, path: Path) -> Plan:
    """The plan of a header; raises VptError where this version does not know it."""
    try:
        return Plan.model_validate(header.plan)
    except ValidationError as error:
        found = [(each["type"], ".".join(("plan", *map(str, each["loc"])))) for each in error.errors()]
        unknown = [key for kind, key in found if kind == "extra_forbidden"]
        wrong = [key for kind, key in found if kind != "extra_forbidden"]
        raise refusal(header, path, unknown, wrong) from error


def read_familiar(header: TaskHeader, path: Path) -> Familiar | None:
    """Raises VptError where the header holds what is none."""
    if header.familiar is None:
        return None
    found = Familiar.from_header(header.familiar)
    if found is None:
        raise VptError(
            f"{path}: its header is damaged: the vectors of its training cases are none; copy the file again"
        )
    return found


def refusal(header: TaskHeader, path: Path, unknown: Sequence[str], wrong: Sequence[str] = ()) -> VptError:
    """Of an artifact whose settings this version cannot read; `unknown`: those that it does not know."""
    said = [(unknown, "unknown here"), (wrong, "not what was expected")]
    what = " and ".join(f"{listed(keys, 3)} {'is' if len(keys) == 1 else 'are'} {how}" for keys, how in said if keys)
    return unusable(header.versions, path, what)


def unusable(versions: Mapping[str, str], path: Path, what: str) -> VptError:
    """The refusal of an artifact for something that this version cannot use; versions: that it was made by."""
    written, own = versions.get("vpt", "of an unknown number"), version("vpt")
    what = what.removeprefix(f"{path}: ")
    if is_newer(versions):
        return VptError(f"{path}: made with a newer vpt {written}: {what} (this is {own}); update vpt")
    return VptError(
        f"{path}: its header is damaged, or was edited: made with vpt {written}, but {what}; copy the file again"
    )


def is_newer(versions: Mapping[str, str]) -> bool:
    """Whether a later version than this one wrote it."""
    return _number(versions.get("vpt", "")) > _number(version("vpt"))


def _writer(content: Any) -> str:
    versions = content.get("versions") if isinstance(content, dict) else None
    written = versions.get("vpt") if isinstance(versions, dict) else None
    return f" (vpt {written})" if isinstance(written, str) and len(written) <= LONGEST_VERSION else ""


def _number(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d{1,9}", text)[:3]))
