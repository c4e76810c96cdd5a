"""How a run trains: its optimiser, its loss, how long and on how much at once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from vpt.sections import Section
from vpt.vocabulary import Mirror


class OptimConfig(Section):
    """The optimiser; each part has its own rate."""

    method: Literal["adamw", "sgd"] = "adamw"
    """`adamw`, or `sgd` with `momentum`, as VPT was published (lr = base / 256 * batch size, base 0.05 to 50)."""
    lr: float | None = Field(None, gt=0)
    """The head's rate; null is the head's own: 2e-3 to segment (SAM's decoder 5e-4, U-Net 1e-3), 1e-2 to classify."""
    prompt_lr: float = Field(5e-3, gt=0)
    """The prompts' rate."""
    backbone_lr: float | None = Field(None, gt=0)
    """The rate of whatever `tuning` trains or adds in the encoder; null is the method's own: 5e-5 of `full` and
    2e-4 of `partial`, which move pretrained weights; 1e-3 of `lora`, `adapter` and `bias` and 5e-3 of `ssf`, which
    start from what changes nothing.
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
    """What training minimises."""

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
    It is saved at the end of every epoch as well, and on a signal to stop.
    """
    calibrate: bool = False
    """Of classification: divide the logits by a temperature that is fitted to the validation split, where one is the
    best of it: of answers that are all right none is.
    """
    postprocess: Literal["none", "auto"] = "none"
    """Of segmentation: `auto` makes of probabilities the mask of the highest expected Dice (`--decide dice`), keeps of
    a label only the largest component, or fills its holes, each where that raises the Dice of the validation cases by
    more than noise. It is part of the artifact: `vpt predict` and `vpt evaluate` do it and say so, `--decide likeliest
    --postprocess none` leaves it out. `vpt evaluate RUN --postprocess choose` does it for a run that is at its end.
    `vpt compare` compares without it.
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
