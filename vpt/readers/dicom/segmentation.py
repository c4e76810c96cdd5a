"""Masks as DICOM segmentations, written with highdicom: patient, study and frame of reference are the series' own."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from vpt.errors import VptError
from vpt.readers.dicom.files import INSTALL, guarded
from vpt.readers.dicom.pixels import leaned
from vpt.readers.dicom.stack import Stack
from vpt.readers.segments import Code, Form, Naming

if TYPE_CHECKING:
    from pydicom import Dataset

PRIVATE = "99VPT"
ANATOMY: Code = ("123037004", "SCT", "Anatomical Structure")
UNKNOWN: Code = ("309825002", "SCT", "Spatial and Relational Concept")
SERIES = 1000  # added to the series' number for that of the segmentation

OF_STUDY = (  # may be empty, and must be there
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)


def segmentation(stack: Stack, labels: np.ndarray, naming: Naming, form: Form, name: str) -> Dataset:
    """Label ids (X, Y, Z) on the stack's grid -> a segmentation on the frames of the series.

    Segments are numbered from 1 in the order of the ids, as DICOM wants it: ids without gaps are kept.
    Raises VptError where the series has no frame of reference, which a segmentation is nothing without.
    """
    if not stack.grid.frame:
        raise VptError(
            f"{name}: has no frame of reference (FrameOfReferenceUID), without which a DICOM SEG has no place; leave "
            "out --as for NIfTI"
        )
    try:
        import highdicom
    except ImportError as error:
        raise VptError(f"{name}: a DICOM SEG takes highdicom to write; {INSTALL}") from error
    ids = sorted(id for id in naming.names if id)
    numbers = np.zeros(labels.shape, np.uint8 if len(ids) < 2**8 else np.uint16)
    for number, id in enumerate(ids, start=1):
        numbers[labels == id] = number
    with guarded(name, "no DICOM SEG could be made of it"):
        frames, sources = _in_files_order(stack, numbers, name)
        made = highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=frames,
            segmentation_type="LABELMAP" if form == "dicom-seg-labelmap" else "BINARY",
            segment_descriptions=[_description(k, id, naming) for k, id in enumerate(ids, start=1)],
            series_instance_uid=highdicom.UID(),
            series_number=SERIES + int(sources[0].get("SeriesNumber") or 0),
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="vpt",
            manufacturer_model_name="vpt",
            software_versions=version("vpt"),
            device_serial_number="0",
            series_description="vpt segmentation",
        )
    return made


def _in_files_order(stack: Stack, numbers: np.ndarray, name: str) -> tuple[np.ndarray, list[Dataset]]:
    """(X, Y, Z) -> (frames, rows, columns) as the series' files hold them, and these files' headers, completed."""
    volume = np.ascontiguousarray(numbers.transpose(2, 1, 0))
    if stack.shifts is not None:
        volume = leaned(volume, stack.shifts, stack.frames[0].shape, name)
    order = sorted(range(len(stack.frames)), key=lambda k: (str(stack.frames[k].header.file), stack.frames[k].index))
    headers = list({id(frame.header): frame.header for frame in (stack.frames[k] for k in order)}.values())
    if len(headers) > 1 and len(headers) < len(order):
        raise VptError(
            f"{name}: a volume in several multi-frame files, of which no DICOM SEG is written; leave out --as for NIfTI"
        )
    return volume[order], [_completed(header.data) for header in headers]


def _completed(source: Dataset) -> Dataset:
    """A copy with every attribute of patient and study, empty where the series has none."""
    from pydicom import Dataset

    made = Dataset(source)
    made.file_meta = source.file_meta
    for keyword in OF_STUDY:
        if keyword not in made:
            setattr(made, keyword, "")
    if not made.get("SpecificCharacterSet"):  # an empty one means the default, but is refused
        made.pop("SpecificCharacterSet", None)
    return made


def _description(number: int, id: int, naming: Naming) -> Any:
    import highdicom

    called = naming.names[id]
    code = naming.codes.get(called)
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=called[:64],
        segmented_property_category=_coded(ANATOMY if code else UNKNOWN),
        segmented_property_type=_coded(code or (f"label-{id}", PRIVATE, called)),
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="vpt", family=_coded(("123110", "DCM", "Artificial Intelligence")), version=version("vpt")
        ),
    )


def _coded(code: Sequence[str]) -> Any:
    from highdicom.sr import CodedConcept

    value, scheme, meaning = code
    return CodedConcept(value, scheme, meaning[:64])
