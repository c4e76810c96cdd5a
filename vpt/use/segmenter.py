"""New scans and images: `vpt.load(run).segment(scan)` gives a label map on the scan's own grid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from vpt.data.cropping import Part
from vpt.data.familiar import Familiar
from vpt.data.hints import Frame, Hints
from vpt.data.plan import Plan
from vpt.data.postprocess import Steps, tidied
from vpt.data.slices.prepared import PreparedSlices
from vpt.data.transforms import TURNS
from vpt.machine.memory import inference_batch
from vpt.model import PromptedModel, numbers_per_image
from vpt.progress import Tick, silent
from vpt.readers import Code, Form, Mask, Naming, Scan
from vpt.readers.grid import restore
from vpt.readers.shown import shown
from vpt.scores.trust import Quality
from vpt.tasks.batch import Forward
from vpt.tasks.deciding import DECISIONS
from vpt.tasks.mirrored import over_mirror_images
from vpt.tasks.segmentation import SliceModel, logits_of_slices, probabilities_of
from vpt.tasks.witness import Witness
from vpt.use.inference import InPrecision, in_smaller_batches, make_ready, read_scan, warn_of_field, warn_of_header
from vpt.use.known_cases import KnownCases
from vpt.use.pages.result import show_result
from vpt.use.prepared_scan import Keep, PreparedScan
from vpt.use.several import require_one, scans_in
from vpt.use.told_places import UNTOLD, ToldPlaces
from vpt.vocabulary import Chosen, Decision, Mirror


class Segmenter:
    """Scans -> label maps. Deterministic, keeps no state between scans, safe to share between threads of one device.

    Made by `vpt.load`, or of a model in memory by `from_model`. decision: how its probabilities become a mask.
    """

    decision: Decision = "likeliest"

    def __init__(
        self,
        model: PromptedModel,
        forward: Forward,
        plan: Plan,
        labels: dict[int, str],
        device: torch.device,
        batch_size: int,
        codes: Mapping[str, Code] | None = None,
        mirror: Mirror = "none",
        postprocess: Steps | None = None,
        known: KnownCases | None = None,
    ):
        """forward: of `model`, ready for inference; labels: id -> name, with background 0; the masks hold the ids;
        batch_size: images at once; codes: by a label's name, for DICOM segmentations; mirror: the mirror images that
        `forward` averages over; postprocess: what is done with the masks; known: the training cases, where it kept
        them.
        """
        self.model = model
        self.forward = forward
        self.mirror = mirror
        self.plan = plan
        self.labels = labels
        self.device = device
        self.batch_size = batch_size
        self.codes = codes or {}
        self.postprocess = postprocess or {}
        self.known = known

    @classmethod
    def from_model(
        cls,
        model: PromptedModel,
        plan: Plan,
        labels: dict[int, str],
        device: torch.device,
        precision: Chosen = "32-true",
        codes: Mapping[str, Code] | None = None,
        mirror: Mirror = "none",
        postprocess: Steps | None = None,
        familiar: Familiar | None = None,
    ) -> Self:
        """The model is made ready for inference in place: moved to the device, its frozen weights kept in `precision`,
        and what the blocks make of its prompts computed once.
        """
        model = make_ready(model, device, precision)
        forward: Forward = InPrecision(SliceModel(model).eval().to(device), precision, device)
        forward = over_mirror_images(forward, TURNS[mirror])
        batch_size = inference_batch(numbers_per_image(model.backbone.spec, plan.image_size, len(labels)), device)
        known = None if familiar is None else KnownCases.of(model, familiar, plan, precision, device, batch_size)
        return cls(model, forward, plan, labels, device, batch_size, codes, mirror, postprocess, known)

    def segment(
        self,
        scan: Scan,
        *,
        box: Any = None,
        points: Any = None,
        point_labels: Sequence[int] | None = None,
        frame: Frame = "voxel",
        form: Form = "own",
        force: bool = False,
    ) -> Mask | list[Mask]:
        """A NIfTI path (several for several channels) or a nibabel image -> labels (X, Y, Z) on its grid, header kept.

        It is a nibabel image too, a `vpt.Segmentation`, which a notebook shows and which knows its `volumes` in ml.

        A SimpleITK image -> one; a MONAI MetaTensor, (C, X, Y, Z), (X, Y, Z) or one slice (X, Y) -> a nibabel image.

        The folder or .zip of a DICOM series, `ChosenSeries(folder, "3")` of one among several -> a NIfTI image, or as
        `form` says ("dicom-seg", "dicom-seg-labelmap") a DICOM segmentation (pydicom).

        An image's path, a Pillow image, or its pixels (rows, columns) or (rows, columns, 3) uint8 -> label ids (rows,
        columns) in the smallest unsigned type, an array that a notebook shows too (`vpt.SegmentedImage`).

        A list of scans -> a list of masks. (To a model of several channels a list is one scan, and a list of lists
        several.) All masks are in memory, and a scan that is refused ends it: `vpt predict` goes on past one.

        A model trained with `head.hints` can be told where to look. Outside the slices that a box crosses all is
        background.

        Args:
            box: the first and the last place inside, ((x, y, z), (x, y, z)); points: [(x, y, z), ...]; of an image
                (x, y), column and row; point_labels: 1 (foreground, the default) or 0 (background) for each point;
            frame: of these coordinates: "voxel", indices of the scan's array, or "ras", mm in its world;
            force: only warn (`vpt.errors.VptWarning`) of values or mm that do not look like those of the training.

        What its header leaves open (`vpt predict` says it too) is a `vpt.errors.HeaderWarning`.

        Raises:
            VptError: what the readers refuse: unreadable, not finite, another number of channels or dimensions; values
                that do not look like those of the training (CT that is not in HU, 16 bits for a model of 8); a scan of
                a model that was trained on images, and the other way round; a box or points that lie outside, or of a
                model that takes none.
        """
        several = scans_in(scan, self.plan)
        require_one(several, box, points)
        masks = []
        for one in [scan] if several is None else several:
            prepared = self.prepare(one, force)
            warn_of_header(prepared.reader, self.plan_for(prepared))
            found = self.labels_of(prepared, ToldPlaces(box, points, point_labels, frame))
            masks.append(self.shown(one, prepared, self.mask_of(prepared, found, form)))
        return masks[0] if several is None else masks

    def segment_with_quality(self, scan: Scan, *, force: bool = False) -> tuple[Mask, Quality]:
        """`segment`, and how far the mask is to be trusted: see `Quality`.

        It is of the masks before any post-processing. An ensemble has all of its scores, one model no agreement.
        """
        prepared = self.prepare(scan, force)
        warn_of_header(prepared.reader, self.plan_for(prepared))
        found, quality = self.judged(prepared)
        return self.shown(scan, prepared, self.mask_of(prepared, found)), quality

    def judged(self, scan: PreparedScan) -> tuple[np.ndarray, Quality]:
        """`labels_of` a scan, and their quality."""
        witness = Witness(self.labels)
        found = self.labels_of(scan, keep=witness.see)
        return found, witness.quality(self.distance_of(scan))

    def distance_of(self, scan: PreparedScan) -> float:
        """How far a scan is from the training cases, see `Familiar.distance`; NaN where the model kept none of them."""
        return math.nan if self.known is None else self.known.distance(self.known.features_of(scan))

    def shown(self, scan: Scan, prepared: PreparedScan, mask: Mask) -> Mask:
        """A mask of a scan as `segment` gives it: it knows its labels, and how a notebook shows it."""
        name, plan = Path(prepared.reader.name).name, self.plan_for(prepared)
        return shown(mask, self.labels, partial(show_result, name=name, scan=scan, plan=plan))

    @property
    def held(self) -> int:
        """How many volumes of probabilities are in memory at once."""
        return 0

    def answering(self, scan: PreparedScan) -> Segmenter:
        """Who knows the probabilities of a scan: itself, of several tasks the segmenter of the scan's own."""
        return self

    def plan_for(self, scan: PreparedScan) -> Plan:
        """The plan by which a scan was prepared."""
        return self.plan

    def prepare(self, scan: Scan, force: bool = False) -> PreparedScan:
        """What the encoder is given of a scan as `segment` takes it, and what its mask is written like."""
        return self.field_told(self.sliced(scan, force))

    def field_told(self, scan: PreparedScan) -> PreparedScan:
        """A scan that was `sliced`, its user warned where it shows more around the body than those of the training."""
        warned = warn_of_field(self.plan, scan.reader.name, scan.whole.grid, scan.part)
        return replace(scan, warned=(*scan.warned, *warned))

    def sliced(self, scan: Scan, force: bool = False) -> PreparedScan:
        """`prepare` for whoever may yet choose another model for the scan: nothing is said of its field."""
        reader, voxels, warned = read_scan(self.plan, scan, force, len(self.labels), self.held)
        whole = voxels.oriented(self.plan.orientation)
        part = Part.by(self.plan.crop, whole, self.plan.channels)
        inside = part.of(whole)
        slices = PreparedSlices.of(inside, self.plan)
        return PreparedScan(slices, voxels.grid, whole, part, inside.grid, reader, warned)

    def mask_of(self, scan: PreparedScan, labels: np.ndarray, form: Form = "own") -> Mask:
        """Label ids (X, Y, Z) on a scan's own grid -> a mask like it."""
        return scan.reader.mask_as(form, labels, Naming(self.labels, self.codes))

    def labels_of(
        self, scan: PreparedScan, told: ToldPlaces = UNTOLD, progress: Tick = silent, keep: Keep | None = None
    ) -> np.ndarray:
        """Label ids (X, Y, Z) on the scan's own grid; progress: of its slices; keep: see `Keep`."""
        hints = told.hints_of(scan, self.model.head.takes_hints, self.mirror)
        return self.found_in(scan, hints, progress, keep)

    def found_in(self, scan: PreparedScan, hints: Hints | None, progress: Tick, keep: Keep | None) -> np.ndarray:
        """`labels_of`, of hints in voxels of the prepared part."""
        on_slices = None if hints is None else hints.on_slices(scan.oriented.shape, scan.slices.size)
        classes = self.classes_of(scan, on_slices, progress, keep)
        if hints is not None:
            classes[~hints.crossed(len(classes))] = 0
        return self.ids_of(classes, scan)

    def ids_of(self, classes: np.ndarray, scan: PreparedScan) -> np.ndarray:
        """Classes of the prepared part, as `classes_of` gives them, -> label ids (X, Y, Z) on the scan's own grid."""
        ids = np.array(sorted(self.labels), dtype=np.min_scalar_type(max(self.labels)))
        found = restore(_named(classes, ids), self.plan.orientation, scan.grid, scan.part.box)
        return tidied(found, self.postprocess) if self.postprocess else found

    def classes_of(
        self, scan: PreparedScan, hints: np.ndarray | None, progress: Tick, keep: Keep | None = None
    ) -> np.ndarray:
        """The class of every voxel of the prepared part, (slices, rows, columns) as the plan orients them.

        hints: (slices, M, 3) in pixels of the prepared slices.
        """

        def in_batches(batch: int) -> np.ndarray:
            found = self._logits_of(scan, hints, batch)
            if keep is not None:
                found = self._kept(found, scan, keep)
            if self.decision != "likeliest":
                found = probabilities_of(found, scan.oriented.shape[1:], len(self.labels), self.device)
            return self._decided(found, scan, progress)

        return in_smaller_batches(scan.reader.name, self.batch_size, in_batches)

    def _decided(self, found: Iterable[Tensor | None], scan: PreparedScan, progress: Tick = silent) -> np.ndarray:
        return DECISIONS[self.decision](found, scan.oriented.shape, len(self.labels), progress)

    def _kept(self, found: Iterator[Tensor | None], scan: PreparedScan, keep: Keep) -> Iterator[Tensor | None]:
        """Pass the logits on, and tell `keep` their probabilities on the way."""
        for place, logits in enumerate(found):
            (probabilities,) = probabilities_of([logits], scan.oriented.shape[1:], len(self.labels), self.device)
            keep(place, probabilities, (probabilities,))
            yield logits

    def probabilities_of(
        self, scan: PreparedScan, hints: np.ndarray | None = None, batch: int | None = None
    ) -> Iterator[Tensor]:
        """Of each slice in order, (K, rows, columns) on the scan's own pixels; never of all at once.

        Where the plan crops, of the slices and pixels of `scan.part`. batch: images at once, by default `batch_size`.
        """
        pixels = scan.oriented.shape[1:]
        return probabilities_of(self._logits_of(scan, hints, batch), pixels, len(self.labels), self.device)

    def _logits_of(
        self, scan: PreparedScan, hints: np.ndarray | None, batch: int | None = None
    ) -> Iterator[Tensor | None]:
        return logits_of_slices(
            self.forward,
            scan.slices,
            self.plan,
            pixels=scan.oriented.shape[1:],
            device=self.device,
            batch_size=batch or self.batch_size,
            hints=hints,
        )


def _named(classes: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Classes (slices, rows, columns) -> their ids, in place where they are of one type.

    Slice by slice: NumPy makes 8 bytes of every number that it looks up with.
    """
    named = classes if classes.dtype == ids.dtype else np.empty(classes.shape, ids.dtype)
    for into, found in zip(named, classes, strict=True):
        into[...] = ids[found]
    return named
