"""Small DICOM series made in code, as scanners write them, to be spoilt one attribute at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

NAME, PATIENT_ID = "Quastenflosser^Waldemar", "PID7391x"
"""Of the patient: to be found nowhere but in DICOM."""
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SHAPE = (5, 6, 8)  # slices, rows, columns
PIXEL = (0.75, 0.5)  # mm between rows, and between columns
STEP = 2.5
ORIGIN = (-10.0, 20.0, 30.0)
UIDS = {"study": generate_uid(entropy_srcs=["study"]), "frame": generate_uid(entropy_srcs=["frame"])}


def numbers(shape: Sequence[int] = SHAPE) -> np.ndarray:
    """(slices, rows, columns), no two alike, from 100 on."""
    return np.arange(100, 100 + int(np.prod(shape)), dtype=np.int16).reshape(shape)


def header(kind: str = CTImageStorage, *, series: int = 3, description: str = "thorax") -> FileDataset:
    """Patient, study and series, and no image yet."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = NAME, PATIENT_ID, "19510203", "M"
    data.StudyInstanceUID, data.FrameOfReferenceUID = UIDS["study"], UIDS["frame"]
    data.SeriesInstanceUID = generate_uid(entropy_srcs=[str(series)])
    data.SeriesNumber, data.SeriesDescription = series, description
    data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20240102", "101112", "1", "A17"
    data.Modality = {CTImageStorage: "CT"}.get(kind, "MR")
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    return data


def put_pixels(data: Dataset, pixels: np.ndarray) -> None:
    """Pixels (rows, columns) or (frames, rows, columns), 16 bits, as the type of the array has them signed or not."""
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = np.ascontiguousarray(pixels).tobytes()


def place(k: int, turn: Sequence[float] = AXIAL, step: float = STEP, origin: Sequence[float] = ORIGIN) -> list[float]:
    """Where the first pixel of slice k lies, LPS mm."""
    normal = np.cross(turn[:3], turn[3:])
    return [round(float(part), 6) for part in np.array(origin) + k * step * normal]


def write_series(
    folder: Path,
    pixels: np.ndarray | None = None,
    *,
    change: Callable[[int, Any], None] = lambda k, data: None,
    turn: Sequence[float] = AXIAL,
    origin: Sequence[float] = ORIGIN,
    kind: str = CTImageStorage,
    reverse: bool = False,
    series: int = 3,
    description: str = "thorax",
) -> Path:
    """A folder of slices, IM000 and so on, each `change`d before it is written; `reverse`: the last slice first."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = numbers() if pixels is None else pixels
    for k, part in enumerate(pixels):
        data = header(kind, series=series, description=description)
        number = len(pixels) - 1 - k if reverse else k
        data.InstanceNumber = number + 1
        data.ImagePositionPatient, data.ImageOrientationPatient = place(k, turn, origin=origin), list(turn)
        data.PixelSpacing, data.SliceThickness = list(PIXEL), STEP
        put_pixels(data, part)
        if kind == CTImageStorage:
            data.RescaleSlope, data.RescaleIntercept = 2, -1000
        change(k, data)
        data.save_as(folder / f"{series}_{number:03d}.dcm", enforce_file_format=True)
    return folder


def as_series(folder: Path, image: Nifti1Image) -> Path:
    """A NIfTI with straight axes as an MR series, slices along its last axis."""
    affine = np.diag([-1, -1, 1, 1]) @ image.affine
    across, down, step = np.linalg.norm(affine[:3, :3], axis=0)
    turn = [*(affine[:3, 0] / across), *(affine[:3, 1] / down)]
    pixels = np.asarray(image.dataobj).transpose(2, 1, 0)

    def change(k: int, data: Any) -> None:
        data.ImagePositionPatient = [f"{part:.10g}"[:16] for part in affine[:3, 3] + k * affine[:3, 2]]
        data.ImageOrientationPatient = [f"{part:.10f}" for part in turn]
        data.PixelSpacing, data.SliceThickness = [f"{down:.10f}", f"{across:.10f}"], f"{step:.10f}"
        data.FrameOfReferenceUID = generate_uid(entropy_srcs=[str(folder)])  # another examination than any other

    return write_series(folder, pixels, change=change, kind=MRImageStorage)


def write_multiframe(
    path: Path, pixels: np.ndarray | None = None, *, slopes: Sequence[float] = (), order: Sequence[int] = ()
) -> Path:
    """One enhanced MR object; slopes: a slope for every frame; order: of the slices in the file."""
    pixels = numbers() if pixels is None else pixels
    order = list(order or range(len(pixels)))
    data = header(EnhancedMRImageStorage)
    put_pixels(data, pixels[order])
    data.NumberOfFrames = len(pixels)
    shared = Dataset()
    turn, measures = Dataset(), Dataset()
    turn.ImageOrientationPatient = list(AXIAL)
    measures.PixelSpacing, measures.SliceThickness = list(PIXEL), STEP
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [turn], [measures]
    data.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for k in order:
        frame, position, scale = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = place(k)
        scale.RescaleSlope, scale.RescaleIntercept = (slopes[k] if slopes else 1), 0
        scale.RescaleType = "US"
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [position], [scale]
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence = frames
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


__all__ = [
    "AXIAL",
    "NAME",
    "ORIGIN",
    "PATIENT_ID",
    "PIXEL",
    "SHAPE",
    "STEP",
    "MRImageStorage",
    "as_series",
    "header",
    "numbers",
    "place",
    "put_pixels",
    "write_multiframe",
    "write_series",
]
