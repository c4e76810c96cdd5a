"""Archives: many scans, one after the other or shared by many processes; every one of them is answered or named."""

from vpt.files import DiskFull
from vpt.use.archives.attempts import Failure
from vpt.use.archives.batch import Asked, Outcome
from vpt.use.archives.beside import Beside
from vpt.use.archives.classes import classify_cases
from vpt.use.archives.classifying import classify_archive
from vpt.use.archives.fingerprints import ModelMark, loaded_whole
from vpt.use.archives.for_tasks import segment_for_tasks
from vpt.use.archives.masks import Masking, mask_file, save_labels, segment_cases
from vpt.use.archives.parts import Part, part_of
from vpt.use.archives.segmenting import segment_archive

__all__ = [
    "Asked",
    "Beside",
    "DiskFull",
    "Failure",
    "Masking",
    "ModelMark",
    "Outcome",
    "Part",
    "classify_archive",
    "classify_cases",
    "loaded_whole",
    "mask_file",
    "part_of",
    "save_labels",
    "segment_archive",
    "segment_cases",
    "segment_for_tasks",
]
