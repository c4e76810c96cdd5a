"""One training run, whole: its sections, and what they become once the task is known."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from vpt.config.start import StartConfig
from vpt.errors import VptError
from vpt.files import absolute, is_address
from vpt.sections import FAIR, HEADS, PROMPTS, TUNINGS, Room, Section
from vpt.vocabulary import Crop, Mirror, Sampling, Target, Task


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
HEAD_RATES: dict[Task, float] = {"segmentation": 2e-3, "classification": 1e-2}
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

    @field_validator("labels", mode="before")
    @classmethod
    def _are_names(cls, labels: Any) -> Any:
        """YAML reads yes and on as true, which would count as 1."""
        for name, claim in labels.items() if isinstance(labels, dict) else ():
            if not str(name).strip():
                raise ValueError("a label without a name")
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

    plane: Literal["axial", "coronal", "sagittal"] | None = None
    """Which slices of a volume the encoder sees."""
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


class OptimConfig(Section):
    """The optimiser; each part has its own rate."""

    method: Literal["adamw", "sgd"] = "adamw"
    """`adamw`, or `sgd` with `momentum`, as VPT was published (lr = base / 256 * batch size, base 0.05 to 50)."""
    lr: float | None = Field(None, gt=0)
    """The head's rate; null: 2e-3 to segment, 1e-2 to classify."""
    prompt_lr: float = Field(5e-3, gt=0)
    """The prompts' rate."""
    backbone_lr: float = Field(2e-4, gt=0)
    """The rate of whatever `tuning` trains or adds in the encoder. Its default is that of `full` and `partial`, which
    move pretrained weights; what starts from zero wants more: about 1e-3 for `lora`, `adapter` and `bias`, 5e-3 for
    `ssf`.
    """
    weight_decay: float = Field(1e-2, ge=0)
    """Of the head, and of what `tuning` trains."""
    prompt_weight_decay: float = Field(0.0, ge=0)
    """Of the prompts."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of `sgd`."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """A share of all steps, in which the rates rise; then they fall as a cosine to 1 % of the peak."""
    schedule: Literal["step", "epoch", "constant"] = "step"
    """The rate changes with every `step`, or with every `epoch` as VPT was published, see `vpt.engine.optim`; with
    `constant` it rises in that share of the first epoch and stays, so that `--resume` may be given more `--epochs`.
    """
    clip: float | None = Field(1.0, gt=0)
    """The most that the norm of all gradients may be; null leaves them as they are."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of a running mean of what trains, which validates and is saved in its place; null for none."""


class LossConfig(Section):
    """What is lessened."""

    smoothing: float = Field(0.0, ge=0, lt=1)
    """Of the labels: so much of every target is spread over all classes."""
    class_weights: Literal["none", "balanced"] | tuple[float, ...] = "none"
    """`none`, `balanced` (classification: by how rare a class is), or a weight for each class in their order, of
    segmentation with the background first.
    """

    @field_validator("class_weights")
    @classmethod
    def _positive(cls, weights: str | tuple[float, ...]) -> str | tuple[float, ...]:
        if not isinstance(weights, str) and (min(weights, default=0) < 0 or not any(weights)):
            raise ValueError("expected weights of 0 and above, one per class, not all 0")
        return weights


class TrainConfig(Section):
    """How long, on how much at once, and on what."""

    epochs: int = Field(20, ge=1)
    """One draw of slices each: as many as the training set has, but 100 batches at least, `max_steps` at most. Of
    classification it is every example once, and again up to 20 batches.
    """
    batch_size: int | None = Field(None, ge=1)
    """Slices or examples at once; null: 32 slices up to 96 px, fewer for larger ones, 8 at least."""
    max_steps: int = Field(250, ge=1)
    """The most batches in an epoch."""
    foreground: float = Field(0.6, ge=0, le=1)
    """Share of the slices that are drawn for a label in them."""
    augment: Literal["none", "light", "strong"] = "light"
    """How strongly slices and examples are changed."""
    mirror: Mirror = "none"
    """They are mirrored too, left and right (`horizontal`: along their rows), up and down, or both, each in half of the
    draws; only for where no label and no class means a side. `vpt predict --tta` averages over the same mirror
    images.
    """
    validate_every: int = Field(1, ge=1)
    """Epochs from one validation to the next."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many validations without a better one; null never does."""
    workers: int | None = Field(None, ge=0)
    """Processes that make samples; null: all cores but one."""
    cache_gb: float = Field(8.0, ge=0)
    """So many GB may be stored of what the blocks below the first prompts make of slices or examples (in half
    precision), so that they run once and not in every epoch, where a sample is always the same.
    """
    views: int = Field(0, ge=0)
    """Where samples are augmented, or cropped at random, every slice or example has so many fixed views, which are all
    that the training then sees; 0 draws every sample anew.
    """
    accumulate: int = Field(1, ge=1)
    """So many batches share an update, by the mean of their gradients."""
    checkpoint: bool = False
    """What the blocks compute is not kept for the backward pass but computed again: less memory for about 1.4 times the
    time.
    """
    compile: bool = False
    """The blocks go through `torch.compile`."""
    save_every: str = Field("10m", pattern=r"^[1-9][0-9]*m?$", coerce_numbers_to_str=True)
    """How often the state to resume from is saved within an epoch: after so many batches (`200`) or minutes (`10m`).
    It is saved at the end of every epoch as well, and on SIGINT and SIGTERM.
    """
    calibrate: bool = False
    """Of classification: divide the logits by a temperature that is fitted to the validation split."""
    postprocess: Literal["none", "auto"] = "none"
    """Of segmentation: `auto` keeps of a label only the largest component, or fills its holes, where that raises the
    Dice of the validation cases by more than noise. It is part of the artifact: `vpt predict` and `vpt evaluate` do it
    and say so, `--postprocess none` leaves it out. `vpt evaluate RUN --postprocess choose` does it for a run that is
    at its end. `vpt compare` compares without it.
    """
    keep_cases: bool = True
    """Of segmentation: up to 64 training cases go into the artifact as 64 numbers each, without names, so that
    `vpt predict --quality` can tell new scans from them; false where nothing of a case may leave the place.
    """
    viewer: bool = False
    """Of segmentation: report.html holds the volumes of the worst validation cases too, to scroll and turn, 20 MB at
    most. It changes nothing of what is trained: `vpt train --resume --out RUN --viewer` gives it to a run at its end.
    """

    @property
    def plain(self) -> bool:
        """Whether a sample is never changed, however often it is drawn."""
        return self.augment == "none" and self.mirror == "none"


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
    seed: int = Field(0, ge=0)
    """Of all that is drawn: splits, shots, weights, samples."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    """`auto` is bfloat16 where the device computes with it."""

    callbacks: Annotated[tuple[CallbackName, ...], BeforeValidator(_listed)] = ()
    """Who is told of the training while it goes on: `mlflow`, `wandb`, or a class of yours as `package.module:Class`
    (docs/extending.md). `vpt compare` tells none.
    """

    def resolved(self, task: Task, *, strict: bool = True) -> ResolvedConfig:
        """With the task, a head that fits it, and its rate; strict: settings of the other task are refused.

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
        if strict:
            self._refuse_settings_of_another(task)
        optim = self.optim if self.optim.lr else self.optim.model_copy(update={"lr": HEAD_RATES[task]})
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return ResolvedConfig(**values | {"task": task, "head": head, "optim": optim})

    def _refuse_settings_of_another(self, task: Task) -> None:
        """What a task does not use, and was set, was set for something."""
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
    """One training run as it is done: the task, the head and its rate are known."""

    task: Task
    head: HeadField

    @property
    def lr(self) -> float:
        """The head's rate."""
        assert self.optim.lr is not None
        return self.optim.lr
