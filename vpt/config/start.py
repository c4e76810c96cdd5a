"""What a run goes on from: the artifact of another one."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from vpt.files import absolute
from vpt.sections import Section


class StartConfig(Section):
    """The artifact whose prompts, head and tuned parts a run starts from, in its plan (`vpt train DATA --from RUN`)."""

    path: Path | None = None
    """An artifact, or the folder of the run that left it; stored as an absolute path. Null starts anew."""
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """Of that file; null is filled in when the run starts."""
    adds: bool = False
    """The data are a further task (`vpt train DATA --continue RUN`), and the artifact's own answers stay: classes are
    added to its, labels get prompts and a head of their own on the same encoder.
    """
    task: str | None = None
    """What the further task is called; null is the name of the data's folder or file."""
    shared: bool = False
    """Of a further task of segmentation, a control: one set of prompts is trained on and on, and answers all tasks,
    each with its own head as that was left. Old answers do change then.
    """
    kept: tuple[str, ...] | None = None
    """Of segmentation: labels of the artifact that stay in the model where the data lack them, as labels that no case
    is annotated for: the artifact does, in training. Null is filled in with all; [] drops them.
    """

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return None if path is None else absolute(path)
