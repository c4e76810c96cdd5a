"""One training run, whole: its sections, and what they become once the task is known."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from vpt.config.start import StartConfig
from vpt.config.training import LossConfig, OptimConfig, TrainConfig
from vpt.errors import VptError
from vpt.files import absolute, is_address
from vpt.sections import FAIR, HEADS, PROMPTS, TUNINGS, Room, Section
from vpt.vocabulary import Crop, Plane, Planes, Precision, Sampling, Target, Task


def _from(room: Room[Any]) -> BeforeValidator:
    """A section that is chosen by name; what it is called decides which settings it has."""

    def validate(values: Any) -> Any:
        if values is None:
            return None
        try:
            return room.validate({room.key: values} if isinstance(values, str) else values)
        except VptError as error:
            raise ValueError(str(error)) from error

    return BeforeValidator(validate)


def _listed(value: Any) -> Any:
    """One name, or names with commas, as `--set` gives them."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _of_path(value: Any) -> Any:
    """The section of what is given by its path alone."""
    return {"path": value} if isinstance(value, str | Path) else value


# Of type `Any`, since each is one of the sections that its room knows at the time.
PromptsField = Annotated[Any, _from(PROMPTS)]
HeadField = Annotated[Any, _from(HEADS)]
TuningField = Annotated[Any, _from(TUNINGS)]
FairField = Annotated[Any, _from(FAIR)]
CallbackName = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*(:[A-Za-z_][\w.]*)?$")]
HEAD_RATES: dict[Task, float] = {"segmentation": 2e-3, "classification": 1e-2}  # of heads that name none
BACKBONE_RATE = 2e-4  # likewise of tunings
DEFAULT_HEADS: dict[Task, str] = {"segmentation": "mask", "classification": "linear"}


class DataConfig(Section):
    """Where the data lie, how they are split, and what of them is used."""

    path: Path
    """The data set: a folder, or a list (.csv, .tsv, .jsonl) or an .npz; stored as an absolute path."""
    fold: int | None = Field(None, ge=0)
    """Which fold validates; where the sides are fixed, of those drawn over train and val, and test stays apart."""
    folds: int | None = Field(None, ge=2)
    """How many folds are drawn; null: 5, or as many as there are patients."""
    target: Target | None = None
    """Of classification: one class a case, any number of labels, or ordered grades; null reads it from the data."""
    classes: tuple[str, ...] | None = None
    """Of classification: which classes, in this order; null reads them from the data."""
    only: tuple[str, ...] | None = None
    """Of classification: leave out the examples of all other classes; null takes every class."""
    patients: str | None = None
    """A regular expression that finds in every case's name whose it is (its first group, or all that it matches); null
    leaves it to `patients` in dataset.json or in the CSV, or else to a guess from the names.
    """
    labels: dict[str, int | str | tuple[int | str, ...]] | None = None
    """What values of the masks are called, where it is not what the data say, {liver: [1, 2]}: a value, a name that the
    data have, or several of them, which become one label; those of `background` are dropped, those of `ignore` count
    neither in the loss nor in scores, and `others` are all that are not named.
    """
    shots: int | None = Field(None, ge=1)
    """Train on so many examples of each class (of segmentation: cases), drawn with the run's seed."""
    use_val: bool = False
    """Train on the validation side too. Nothing chooses then: the last epoch counts (the VTAB protocol)."""

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return absolute(path)

    @field_validator("classes", "only", mode="before")
    @classmethod
    def _are_classes(cls, names: Any) -> Any:
        """Numbers are names of classes too; what YAML has made something else of is not guessed."""
        if not isinstance(names, list | tuple):
            return names
        for name in names:
            if isinstance(name, bool | float) or name is None:
                raise ValueError(f'YAML reads a name as {name}; write classes in quotes, ["1.0", "yes", "none"]')
        return [str(name) if isinstance(name, int) else name for name in names]

    @field_validator("labels", mode="before")
    @classmethod
    def _are_names(cls, labels: Any) -> Any:
        """YAML reads yes and on as true, which would count as 1."""
        for name, claim in labels.items() if isinstance(labels, dict) else ():
            if isinstance(name, bool):
                raise ValueError(f"a label's name is read as {name}; quote a name such as yes, no, on or off")
            if not str(name).strip():
                raise ValueError("a label without a name")
            if claim is None:
                raise ValueError(f"{name}: names no value; write {{name: value}}, with a blank behind the colon")
            if any(isinstance(part, bool) for part in (claim if isinstance(claim, list | tuple) else [claim])):
                raise ValueError(f"{name}: true and false (yes, no, on, off) are no values; quote a name that reads so")
        return labels


class BackboneConfig(Section):
    """The frozen encoder."""

    name: str = "vit_micro"
    """Of the package or of timm, `hf-hub:`..., or a folder; `none` is the control without an encoder."""
    weights: str | None = None
    """A file, of SAM an address too, or `random` (a control); null for the pretrained ones of that name."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Those of the encoder's family."""

    @model_validator(mode="before")
    @classmethod
    def _attention_is_an_option(cls, values: Any) -> Any:
        """`attention`, which once stood here for every family, of which only SAM's has it."""
        if not isinstance(values, dict) or "attention" not in values:
            return values
        values = dict(values)
        attention = values.pop("attention")
        if attention != "fused":
            values["options"] = {**values.get("options", {}), "attention": attention}
        return values

    @field_validator("name", "weights")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        return str(Path(path).resolve()) if path and not is_address(path) and os.path.exists(path) else path


class PlanConfig(Section):
    """What the plan must not decide by itself; null leaves it to the data's fingerprint."""

    plane: Plane | None = None
    """Which slices of a volume the encoder sees."""
    planes: Planes = "one"
    """Of a volume that is segmented, slices in that plane (`one`), or training draws from axial, coronal and sagittal
    ones alike, and the mean probability of the three decides (`all`), for three times the time of a new scan; for
    voxels that are about cubes.
    """
    image_size: int | None = Field(None, ge=8)
    """Side of the images that the encoder sees, in pixels."""
    pixel_mm: float | None = Field(None, gt=0)
    """Size of their pixels, in mm."""
    neighbours: bool | None = None
    """The slices before and after are the other two of an image's three channels."""
    window: tuple[float, float] | None = None
    """The intensities that become black and white, in the scan's units."""
    slices: int = Field(16, ge=1)
    """Of a volume that is classified, so many are read, evenly spread."""
    skip_blank: bool = False
    """Of a new scan, slices of one value throughout are background without the encoder."""
    sampling: Sampling | None = None
    """Labelled slices are drawn alike (`even`), or every label as often as the others (`by_label`), which is chosen
    where one is rare.
    """
    crop: Crop | None = None
    """Of a volume that is segmented, the encoder sees all (`none`), or the box around what is not air, padding or 0
    (`foreground`), which is chosen where that is half of the voxels or less.
    """


# What only one of the tasks uses: a setting's dotted key -> that task.
OF_ONE_TASK: dict[str, Task] = {
    "data.target": "classification",
    "data.classes": "classification",
    "data.only": "classification",
    "data.labels": "segmentation",
    "plan.slices": "classification",
    "plan.skip_blank": "segmentation",
    "plan.sampling": "segmentation",
    "plan.crop": "segmentation",
    "plan.planes": "segmentation",
    "train.foreground": "segmentation",
    "train.calibrate": "classification",
    "train.postprocess": "segmentation",
    "train.keep_cases": "segmentation",
    "train.viewer": "segmentation",
}


class Config(Section):
    """One training run as it was asked for; `resolved` puts in what follows from the task."""

    task: Task | None = None
    """Null is told by the data: class folders, a CSV or .npz are classified, what has masks is segmented."""
    data: DataConfig
    """Where the data lie, how they are split, and what of them is used."""
    start: Annotated[StartConfig, BeforeValidator(_of_path)] = StartConfig()
    """What the run goes on from: a path, or a section."""
    backbone: BackboneConfig = BackboneConfig()
    """The frozen encoder."""
    prompts: PromptsField = Field(default_factory=lambda: PROMPTS.section("deep")())
    """The prompt method: a name, or a section."""
    head: HeadField | None = None
    """The head: a name, or a section; null is the task's own, `mask` or `linear`."""
    tuning: TuningField = Field(default_factory=lambda: TUNINGS.section("prompts")())
    """What of the encoder trains (controls): a name, or a section."""
    plan: PlanConfig = PlanConfig()
    """What the plan must not decide by itself."""
    optim: OptimConfig = OptimConfig()
    """The optimiser; each part has its own rate."""
    loss: LossConfig = LossConfig()
    """What is lessened."""
    train: TrainConfig = TrainConfig()
    """How long, on how much at once, and on what."""
    fair: FairField | None = None
    """What is done for groups of cases to be treated alike: a section with a method and a column; null for nothing."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Of all that is drawn: splits, shots, weights, samples."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""
    precision: Precision = "auto"
    """`auto` is bfloat16 where the device computes with it."""

    callbacks: Annotated[tuple[CallbackName, ...], BeforeValidator(_listed)] = ()
    """Who is told of the training while it goes on: `mlflow`, `wandb`, or a class of yours as `package.module:Class`
    (docs/extending.md). `vpt compare` tells none.
    """

    def resolved(self, task: Task, *, strict: bool = True) -> ResolvedConfig:
        """The config with its task, a head that fits it, and the rates; strict: settings of the other task are refused.

        Raises:
            VptError: a head, or a setting, of the other task.
        """
        head = HEADS.section(self.prompts.partner or DEFAULT_HEADS[task])() if self.head is None else self.head
        for key, chosen, room in (("prompts.method", self.prompts, PROMPTS), ("head.kind", head, HEADS)):
            if task not in chosen.tasks:
                fitting = [
                    each
                    for each in room
                    if task in each.tasks and each.offered and (room is PROMPTS or each.partner is None)
                ]
                *others, last = (section.name_by(room.key) for section in fitting)
                found = f"{key}={chosen.name_by(room.key)}"
                raise VptError(f"{found} is not for {task}; choose {', '.join(others)} or {last}, or another task")
        require_partners(self.prompts, head)
        if task == "segmentation" and self.loss.class_weights == "balanced":
            raise VptError("loss.class_weights=balanced is for classification; of segmentation give a list of weights")
        if self.plan.planes == "all" and getattr(head, "hints", False):
            raise VptError(
                "head.hints: a box lies in one plane, and plan.planes=all looks in three; leave one of them out"
            )
        if strict:
            self._refuse_settings_of_another(task)
        lr = self.optim.lr or head.own_rate or HEAD_RATES[task]
        backbone_lr = self.optim.backbone_lr or self.tuning.own_rate or BACKBONE_RATE
        optim = self.optim.model_copy(update={"lr": lr, "backbone_lr": backbone_lr})
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return ResolvedConfig(**values | {"task": task, "head": head, "optim": optim})

    def _refuse_settings_of_another(self, task: Task) -> None:
        """Refuse settings that the task does not use: whoever set them expects something of them."""
        for key, its in OF_ONE_TASK.items():
            section, _, name = key.partition(".")
            inner = getattr(self, section)
            value, default = getattr(inner, name), type(inner).model_fields[name].default
            if its != task and value != default:
                raise VptError(f"{key}={value} is a setting of {its}, which {task} does not use; leave it out")


def require_partners(prompts: Any, head: Any) -> None:
    """Raise VptError where one of these sections needs another of the other kind, see `Choice.partner`."""
    if prompts.partner not in (None, head.kind):
        raise VptError(
            f"prompts.method={prompts.method} is read by the head {prompts.partner} alone, found "
            f"head.kind={head.kind}; leave head.kind out"
        )
    if head.partner not in (None, prompts.method):
        raise VptError(
            f"head.kind={head.kind} reads what {head.partner} have become, found prompts.method={prompts.method}; "
            f"add --prompts {head.partner}, or choose another head"
        )


class ResolvedConfig(Config):
    """One training run as it is done: the task, the head, its rate and that of the backbone are known."""

    task: Task
    head: HeadField

    @property
    def lr(self) -> float:
        """The head's rate."""
        assert self.optim.lr is not None
        return self.optim.lr
