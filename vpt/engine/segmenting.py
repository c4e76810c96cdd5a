"""A run that learns to segment: slices to train on, whole volumes to validate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from logging import Logger
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vpt.artifact import Artifact, read_artifact, save_artifact
from vpt.backbones.tiny_vit_models import is_packaged
from vpt.data.annotated import annotation_doubts
from vpt.data.cases import Case, SegmentationSet
from vpt.data.doubts.inside_out import masks_of
from vpt.data.doubts.mask_looks import mask_doubts
from vpt.data.label_maps import read_label
from vpt.data.plan import Plan
from vpt.data.postprocess import Steps, in_words
from vpt.data.slices.cached_slices import PreparedCase, prepare_cases
from vpt.data.slices.drawing import SliceDataset, SliceDraw, StoredSlices, annotated_classes, draw_epoch
from vpt.data.slices.stored import Store, Viewed, versions_of
from vpt.data.transforms import identity, make_augment
from vpt.engine.job import Job
from vpt.engine.keeping import keep_cases
from vpt.engine.previews import show_scan
from vpt.engine.ranks import ALONE, Ranks
from vpt.engine.setup import Setup
from vpt.engine.sound import Asked
from vpt.engine.starting import held_labels, teacher_of
from vpt.engine.validating import validate
from vpt.errors import VptError
from vpt.progress import bar
from vpt.readers import reader_of
from vpt.report.pictures import write_preview
from vpt.report.segmentation import Report
from vpt.restoring import load_trained
from vpt.tasks.answers import MaskAnswers
from vpt.tasks.batch import Loss, NamedSamples
from vpt.tasks.frozen import FrozenPrefix
from vpt.tasks.held import holding
from vpt.tasks.partly import over_annotated
from vpt.tasks.segmentation import SliceModel, SliceModelOverPrefix, dice_ce, where_it_counts
from vpt.use.archives import mask_file
from vpt.use.decisions import choose_decision
from vpt.use.planes import segmenter_of
from vpt.use.scored_splits import evaluate_split
from vpt.use.segmenter import Segmenter
from vpt.use.tidying import choose_steps
from vpt.vocabulary import DECIDED, Decision
from vpt.words import listed

PREVIEWS = 6
LEAST_STEPS = 100  # of an epoch
MEDICAL = "lite_medsam"
LOOKED_AT = 32  # batches, for prompts that start from tokens


class Segmenting(Job):
    score = "dice"
    unit = "slice"
    case_of = attrgetter("case")

    def __init__(self, run: Path, setup: Setup, cache: Path, ranks: Ranks = ALONE):
        super().__init__(run, setup, cache, ranks)
        assert isinstance(setup.dataset, SegmentationSet)
        self.segmented = setup.dataset
        self.shown = {f"dice_{name}": name for name in list(setup.dataset.labels.values())[1:]}
        self.choose_by_worst()

    def read(self) -> None:
        config = self.setup.config
        plan = self.setup.plan
        self.training = [case for each in (plan, *plan.others) for case in self._prepare_cases("train", each)]
        self.validation = self._prepare_cases("val", plan)
        if not any(case.foreground for case in self.training):
            root = self.segmented.root
            raise VptError(f"{root}: no training case has a labelled voxel, so there is nothing to learn; check masks")
        weights = config.loss.class_weights
        given = None if isinstance(weights, str) else weights
        loss = dice_ce(given, config.loss.smoothing)
        self.loss = where_it_counts(loss) if self.segmented.ignores else loss
        if self.segmented.is_partly_annotated:
            self.loss = over_annotated(self.loss, given, config.loss.smoothing)
        if held := held_labels(self.setup.config, self.segmented, self.setup.splits.train):
            self.loss = self._holding(held)
        self.batch_size = self.choose_batch_size()
        self.count = sum(case.depth for case in self.training)
        self.steps = min(config.train.max_steps, max(LEAST_STEPS, round(self.count / self.batch_size)))

    def _holding(self, names: list[str]) -> Loss:
        if self.ranks.several:
            raise VptError(
                f"{listed(names, 10)}: annotated by the artifact, which one process alone has to do; leave "
                "--devices out, or drop the labels with start.kept=[]"
            )
        teacher, classes = teacher_of(self.setup.config, self.setup.start, self.segmented.labels, names)
        return holding(self.loss, SliceModel(teacher), classes)

    def _prepare_cases(self, part: str, plan: Plan) -> list[PreparedCase]:
        """In the plan's plane; those of another plane than the run's lie in a folder of their own."""
        own = plan is self.setup.plan
        with bar(f"preparing {part} cases{'' if own else f', {plan.plane}'}") as tick:
            cases = [self.segmented.case(name) for name in getattr(self.setup.splits, part)]
            cache = self.cache if own else self.cache / plan.plane
            return prepare_cases(self.segmented, cases, plan, cache, tick, native=part == "val")

    @property
    def in_own_plane(self) -> list[PreparedCase]:
        """The training cases, each once, in the plan's own plane."""
        return self.training[: len(self.setup.splits.train)]

    @property
    def groups_of_cases(self) -> Sequence[int]:
        """A case has its group in each of the planes that it is drawn in."""
        return [*super().groups_of_cases] * (1 + len(self.setup.plan.others))

    @property
    def asked(self) -> Asked:
        plan, size = self.setup.plan, self.setup.plan.image_size
        return Asked((plan.inputs, size, size), (len(self.segmented.labels), size, size))

    @property
    def fixed(self) -> bool:
        """Nothing is augmented, and every slice fits, so nothing is cropped."""
        size = self.setup.plan.image_size
        return self.setup.config.train.plain and all(max(case.size) <= size for case in self.training)

    def viewed(self, views: int) -> SliceDataset:
        plan, train = self.setup.plan, self.setup.config.train
        augment = make_augment(train.augment, plan.around, train.mirror)
        annotated = None
        if self.segmented.is_partly_annotated:
            annotated = annotated_classes(self.training, len(self.segmented.labels))
        hints = self.model.head.takes_hints
        return SliceDataset(self.training, plan, augment, hints=hints, views=views, annotated=annotated)

    def samples(self, viewed: Viewed, store: Store | None) -> NamedSamples:
        assert isinstance(viewed, SliceDataset)
        others = ["hints"] if viewed.hints else []
        others += ["annotated"] if viewed.annotated is not None else []
        if store is None:
            return NamedSamples(viewed, ["images", "truth", *others])
        return NamedSamples(StoredSlices(viewed, store), ["images", "truth", "rows", *others])

    def on_images(self) -> SliceModel:
        return SliceModel(self.model)

    def over_prefix(self, prefix: FrozenPrefix) -> SliceModelOverPrefix:
        return SliceModelOverPrefix(prefix)

    def place(self, part: str) -> tuple[Path, Sequence[str]]:
        cases = [self.segmented.case(name) for name in getattr(self.setup.splits, part)]
        files = [file for case in cases for file in case.files]
        return self.cache, [*(case.name for case in cases), *versions_of(files)]

    def doubts(self) -> list[str]:
        found = super().doubts()
        if self.validates and not any(case.foreground for case in self.validation):
            found.append(
                "no validation case has a labelled voxel, so Dice cannot choose: the last epoch counts as the best"
            )
        sides = {"training": self.setup.splits.train, "validation": self.setup.splits.val}
        held = held_labels(self.setup.config, self.segmented, self.setup.splits.train)
        found += annotation_doubts(self.segmented, sides, held)
        cases = (*self.in_own_plane, *self.validation)
        looks = [case.look for case in cases if case.look]
        texts = mask_doubts(looks, self.segmented.labels, self.segmented.kind, of_places=True)
        found += [f"{masks_of(self.segmented)}: {text}" for text in texts]
        if self.setup.config.train.postprocess == "auto" and not self.validates:
            found.append("train.postprocess: no validation case to choose by, so masks stay as they are")
        return found

    def proposals(self) -> list[str]:
        """An encoder of medical images that is installed too, to whoever chose none."""
        found = super().proposals()
        if "name" in self.setup.config.backbone.model_fields_set or not is_packaged(MEDICAL):
            return found
        return [
            *found,
            f"{MEDICAL} is installed, an encoder that was trained on medical images; --backbone {MEDICAL} --head "
            f"sam_decoder takes it, with its decoder, in the place of {self.setup.config.backbone.name}",
        ]

    def draw(self, epoch: int) -> list[list[SliceDraw]]:
        config = self.setup.config
        return draw_epoch(
            self.training,
            steps=self.steps,
            batch_size=self.batch_size,
            foreground=config.train.foreground,
            seed=config.seed,
            epoch=epoch,
            sampling=self.setup.plan.sampling,
            groups=self.balanced,
        )

    def answers(self) -> MaskAnswers:
        if self.segmented.is_partly_annotated:
            raise VptError(
                "fair.method=reprogram: cases are annotated for some of the labels only, so masks cannot be compared "
                "between groups; take balanced or group_dro"
            )
        return MaskAnswers(len(self.segmented.labels))

    def names(self, samples: Sequence[SliceDraw]) -> list[str]:
        plans, count = (self.setup.plan, *self.setup.plan.others), len(self.setup.splits.train)
        planes = ["" if len(plans) == 1 else f"{plan.plane} " for plan in plans]
        return [f"{self.training[each.case].name} {planes[each.case // count]}slice {each.slice}" for each in samples]

    def images(self) -> Iterator[Tensor]:
        """Slices of the first epoch's draw, `LOOKED_AT` batches at most."""
        plain, normalise = SliceDataset(self.training, self.setup.plan, identity), self.normalise()
        for batch in self.draw(0)[:LOOKED_AT]:
            yield normalise(torch.stack([plain[draw][0] for draw in batch]).to(self.setup.device))

    def validate(self, forward: nn.Module) -> dict[str, float]:
        self.previews.begin(self.ranks)
        see, batch, groups = self.previews.see, self.inference_batch, list(self.choosing.values())
        found = validate(forward, self.validation, self.setup, batch, see, self.ranks, groups)
        self.previews.end(self.ranks)
        return found

    def finish(self, log: Logger) -> None:
        """Masks, summary.json, cases.csv, previews of the worst cases."""
        setup, run = self.setup, self.run
        best = read_artifact(run / "best.safetensors")
        load_trained(self.model, best.tensors, best.path)
        segmenter = segmenter_of(self.model, setup.plan, setup.dataset.labels, setup.device, self.precision)
        folder = run / "validation"
        cases = [self.segmented.case(name) for name in setup.splits.val]
        whose = setup.dataset.patient
        with bar("validating") as tick:
            title = f"{run.name}: validation split"
            report = evaluate_split(segmenter, cases, folder, whose, title=title, progress=tick, to_save=True)
        chosen = self._choose_decision(segmenter, cases, report, log)
        if chosen != segmenter.decision:
            segmenter.decision = chosen
            title += f"; {DECIDED[chosen]}, as chosen on these cases"
            with bar("validating, decided anew") as tick:
                report = evaluate_split(segmenter, cases, folder, whose, title=title, progress=tick, to_save=True)
        if steps := self._choose_steps(cases, folder, best, log):
            segmenter.postprocess = steps
            title += f"; {in_words(steps, segmenter.labels)}, as chosen on these cases"
            with bar("validating, post-processed") as tick:
                report = evaluate_split(segmenter, cases, folder, whose, title=title, progress=tick, to_save=True)
        if (steps, chosen) != (best.postprocess, best.decision):
            self._record(steps, chosen, best)
        report.save(folder)
        (folder / "previews").mkdir(exist_ok=True)
        dice = dict(zip((case.name for case in cases), report.values("Dice"), strict=True))
        for case in sorted(cases, key=lambda case: _or_last(dice[case.name]))[:PREVIEWS]:
            said = _scored(case.name, dice[case.name], segmenter.labels)
            _preview(folder / "previews" / f"{case.name}.png", case, folder / f"{case.name}.nii.gz", setup, said)

    def _choose_decision(self, segmenter: Segmenter, cases: Sequence[Case], report: Report, log: Logger) -> Decision:
        """How masks are decided, by the report on the likeliest labels; the artifact holds it from then on."""
        if self.setup.config.train.postprocess != "auto":
            return "likeliest"
        with bar("choosing the decision") as tick:
            choice = choose_decision(segmenter, cases, report, tick)
        log.info(str(choice))
        return choice.decision

    def _choose_steps(self, cases: Sequence[Case], folder: Path, best: Artifact, log: Logger) -> Steps:
        """How masks are tidied, by raw masks of the validation cases; the artifact holds it from then on."""
        steps: Steps = {}
        if self.setup.config.train.postprocess == "auto":
            patients = [self.setup.dataset.patient(case.name) for case in cases]
            masks = [mask_file(folder, case) for case in cases]
            with bar("choosing the post-processing") as tick:
                choice = choose_steps(cases, masks, patients, best.labels, tick)
            for sentence in choice.sentences():
                log.info(sentence)
            steps = choice.steps
        return steps

    def _record(self, steps: Steps, decision: Decision, best: Artifact) -> None:
        save_artifact(
            best.path,
            self.model,
            config=self.setup.config,
            plan=self.setup.plan,
            labels=best.labels,
            scores=best.scores,
            codes=best.codes,
            postprocess=steps,
            decision=decision,
            earlier=self.setup.earlier,
        )

    def keep_familiar(self) -> None:
        if not self.setup.config.train.keep_cases:
            return
        path = self.run / "best.safetensors"
        load_trained(self.model, read_artifact(path).tensors, path)
        setup = self.setup
        cases = self.in_own_plane  # as a new scan's features are
        keep_cases(path, self.model, cases, setup.plan, setup.device, self.precision, self.inference_batch)


def _or_last(dice: np.ndarray) -> float:
    """The mean over labels that have a score; infinite without any."""
    return float(np.nanmean(dice)) if np.isfinite(dice).any() else np.inf


def _scored(name: str, dice: np.ndarray, labels: Mapping[int, str]) -> str:
    """A case's name with the Dice of its labels."""
    named = zip((label for id, label in labels.items() if id > 0), dice.tolist(), strict=True)
    scores = [f"{label} {value:.3f}" for label, value in named if np.isfinite(value)]
    return f"{name}: Dice {', '.join(scores)}" if scores else f"{name}: nothing to find, nothing found"


def _preview(path: Path, case: Case, mask: Path, setup: Setup, title: str) -> None:
    """A picture of a case's scan, mask and reference, in the plan's orientation."""
    plan, ids, names = setup.plan, list(setup.dataset.labels), list(setup.dataset.labels.values())
    scan = reader_of(case.images)
    grid, shown = scan.grid(), show_scan(case, setup)
    found, truth = (
        np.searchsorted(ids, read_label(file, ids, grid, scan.name).oriented(plan.orientation).counted)
        for file in (mask_file(mask.parent, case), case.label)
    )
    write_preview(path, shown.image, found, truth, names, title, shown.aspect, shown.letters, pixel_mm=shown.pixel_mm)
