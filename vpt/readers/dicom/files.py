"""DICOM files wherever they lie: one file, a folder of them, a zip that is read in memory and never unpacked.

What a header says of the patient stays in it: no error quotes a value, and warnings of pydicom, which do, are silenced.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from io import SEEK_END, BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from vpt.errors import VptError
from vpt.files import is_hidden, may_enter
from vpt.machine.available import available_memory
from vpt.readers.content import LIST, other_content
from vpt.words import counted, listed

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

ENDINGS = (".dcm", ".dicom", ".ima")
INSTALL = "pip install 'vpt[dicom]'"
MARK = b"DICM"  # behind a preamble of 128 bytes
FIRST_TAGS = {b"\x02\0\0\0", b"\x08\0\0\0", b"\x08\0\x05\0", b"\x08\0\x08\0", b"\x08\0\x16\0"}
"""What a file without preamble begins with: the length of a group, characters, kind of image or object."""
DIRECTORY = "1.2.840.10008.1.3.10"  # a DICOMDIR, which lists files and holds no image
QUOTING = r"(pydicom|highdicom|vpt\.readers\.dicom)(\.|$)"  # modules whose warnings quote what they read
MOST_BYTES = 8 * 2**30  # of a zip, unpacked
MOST_MEMBERS = 100_000
DEFLATED = "1.2.840.10008.1.2.1.99"  # the transfer syntax "deflated explicit VR little endian"
MOST_DEFLATED = 2**20  # bytes, which may become a thousand times as many


@dataclass(frozen=True)
class DicomFile:
    """A file, or a member of a zip."""

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return str(self.path / self.member)

    @property
    def name(self) -> str:
        return PurePosixPath(self.member).name or self.path.name

    def read(self, pixels: bool) -> Dataset:
        """The data set, with or without its pixels; what is no DICOM raises pydicom's InvalidDicomError.

        A file without the preamble, as old archives keep them, is known by its first attribute.
        """
        from pydicom import dcmread

        source = BytesIO(self._unpacked()) if self.member else self.path
        self._refuse_deflated(source)
        try:
            found = dcmread(source, stop_before_pixels=not pixels, force=self._is_bare(source))
        except MemoryError as error:  # pydicom takes as much memory as an element's length asks for
            raise MemoryError(f"{self}: too little memory is free to read it, or a length in it is damaged") from error
        if found.file_meta.get("TransferSyntaxUID") is None:
            found.file_meta.TransferSyntaxUID = _syntax_of(found)
        return found

    def _is_bare(self, source: BytesIO | Path) -> bool:
        """Whether it begins with an attribute, without the preamble."""
        if not self.name.lower().endswith(ENDINGS):
            return False
        with nullcontext(source) if isinstance(source, BytesIO) else open(source, "rb") as file:
            start = file.read(4)
            file.seek(0)
        return start in FIRST_TAGS

    def _unpacked(self) -> bytes:
        """Raises OSError for a member that is larger than the zip's list of contents says, or than fits."""
        with zipfile.ZipFile(self.path) as packed:
            size = packed.getinfo(self.member).file_size
            if (free := available_memory()) is not None and size > free:
                raise MemoryError(f"{self}: takes {size / 2**30:.3g} GiB, {free / 2**30:.3g} GiB of memory are free")
            try:
                return packed.read(self.member)
            except (zipfile.BadZipFile, zlib.error, EOFError):
                raise VptError(f"{self}: damaged in its zip; copy or pack it again") from None

    def _refuse_deflated(self, source: BytesIO | Path) -> None:
        """A rare way to pack a whole file, which pydicom inflates at once, whatever comes out."""
        with nullcontext(source) if isinstance(source, BytesIO) else open(source, "rb") as file:
            size = file.seek(0, SEEK_END)
            deflated = size > MOST_DEFLATED and _is_deflated(file)
            file.seek(0)
        if deflated:
            raise VptError(
                f"{self}: packed whole by deflate, {size / 2**20:.1f} MiB, expected {MOST_DEFLATED >> 20} MiB at most; "
                "export it uncompressed"
            )


def _is_deflated(file: BinaryIO) -> bool:
    """Whether pydicom would inflate it: by the header's first group, as it reads that, however long it is."""
    from pydicom.filereader import read_dataset

    file.seek(0)
    start = 132 if file.read(132)[128:] == MARK else 0
    for implicit in (False, True):  # the second as pydicom tries it where the first makes no sense
        file.seek(start)
        with suppress(Exception):  # what is wrong with it is said when it is read
            first = read_dataset(file, implicit, True, stop_when=lambda tag, vr, length: tag.group != 2)
            if first.get("TransferSyntaxUID") == DEFLATED:
                return True
    return False


def _syntax_of(data: Dataset) -> UID:
    """How the numbers of a file that does not say it are written: as its attributes are."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    implicit, little = data.original_encoding
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian


@dataclass(frozen=True, eq=False)
class Header:
    """A file and what it says, without its pixels."""

    file: DicomFile
    data: Dataset

    def get(self, keyword: str) -> Any:
        """The value of an attribute, None where it is missing or empty."""
        value = self.data.get(keyword)
        return None if value is None or value == "" else value


def mark_of_patient(header: Header) -> str:
    """A hash of the patient's id and who issued it, "" where there is none."""
    id = str(header.get("PatientID") or "").strip()
    issuer = str(header.get("IssuerOfPatientID") or "").strip()
    return hashlib.sha256(f"{issuer}\0{id}".encode()).hexdigest() if id else ""


@contextmanager
def guarded(name: object, what: str = "cannot be read as DICOM") -> Iterator[None]:
    """Whatever pydicom and highdicom raise becomes one sentence that quotes nothing of the header; they say no more."""
    require_pydicom(name)
    try:
        warnings.filterwarnings("ignore", module=QUOTING)
        log = logging.getLogger("pydicom")
        if log.level != logging.CRITICAL:  # to set it empties every logger's cache, which takes longer than a header
            log.setLevel(logging.CRITICAL)
        yield
    except (VptError, MemoryError):
        raise
    except Exception as error:  # of a library: its words may hold the patient's
        raise VptError(f"{name}: {what} ({type(error).__name__}); export it again") from None


def require_pydicom(name: object) -> None:
    try:
        import pydicom  # noqa: F401
    except ImportError as error:
        raise VptError(f"{name}: DICOM, which takes pydicom to read; {INSTALL}") from error


def holds_dicom(folder: Path, alone: Callable[[Path], bool]) -> bool:
    """Whether half of the files in the folder itself, or more, are DICOM: by their ending, or their mark.

    Of files of any other ending the first tells whether the others are looked at. Not where the first DICOM file is an
    image that stands `alone`: such are no slices of one scan. A folder that nobody may enter holds none.
    """
    if not may_enter(folder):
        return False
    files = [path for path in sorted(folder.iterdir()) if not _is_passed_over(path) and path.is_file()]
    first = {path.suffix: path for path in reversed(files)}
    marked = {ending for ending, path in first.items() if is_marked(path)}
    found = [path for path in files if _is_called(path) or (path.suffix in marked and is_marked(path))]
    return 0 < len(found) >= len(files) - len(found) and not alone(found[0])


def is_dicom(path: Path) -> bool:
    """A file that is called as DICOM, or marked as such, whatever it is called."""
    return path.is_file() and (_is_called(path) or is_marked(path))


def _is_called(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS)


def is_marked(path: Path) -> bool:
    """Whether a file says of itself that it is DICOM; a DICOMDIR lists files, and is no scan."""
    if path.name.upper() == LIST or not path.is_file():  # a pipe would be waited for
        return False
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == MARK
    except OSError:
        return False


def headers_in(path: Path) -> tuple[list[Header], int]:
    """The headers of all DICOM files in a folder, a zip or one file, and how many other files lie there.

    Raises VptError where there are none, and for a damaged file whose name says that it is DICOM.
    """
    if not (path.is_file() or path.is_dir()):
        raise VptError(f"{path}: no such file or folder; give a folder of DICOM files, a .zip of them or a .dcm file")
    files = _members(path) if path.suffix.lower() == ".zip" and path.is_file() else _files(path)
    found, others = [], 0
    for file in files:
        header = _header(file)
        if header is None:
            others += 1
        elif header.get("SOPClassUID") is not None:
            found.append(header)
    if not found:
        below = sorted(each.name for each in path.iterdir() if each.is_dir()) if path.is_dir() else []
        inner = f"; did you mean {path / below[0]}?" if below else "; give the folder that holds the series"
        if len(below) > 1:
            inner = f", but {len(below)} folders ({listed(below, 3)}); give one of these, a series in one folder"
        if packed := [file.name for file in files if file.name.lower().endswith(".zip")]:
            inner = f", but {packed[0]}, which is a zip itself; unpack it, and give that or its folder"
        raise VptError(f"{path}: no DICOM file in {'this folder' if path.is_dir() else 'it'}{inner}")
    return found, others


def _files(path: Path) -> list[DicomFile]:
    if not path.is_dir():
        return [DicomFile(path)]
    return [DicomFile(each) for each in sorted(path.iterdir()) if each.is_file() and not _is_passed_over(each)]


def _members(path: Path) -> list[DicomFile]:
    """The files of a zip, which may be neither too many nor too large, and none of which may lie outside of it."""
    try:
        with zipfile.ZipFile(path) as packed:
            inside = [each for each in packed.infolist() if not each.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise VptError(f"{path}: not a readable zip ({error}); copy or pack it again") from error
    for each in inside:
        parts = PurePosixPath(each.filename.replace("\\", "/")).parts
        if ".." in parts or each.filename.startswith(("/", "\\")) or parts[0].endswith(":"):
            raise VptError(f"{path}: lists a file outside of itself ({each.filename}); pack it again")
        if each.flag_bits & 1:
            raise VptError(f"{path}: packed with a password; unpack it, and give the folder")
    size = sum(each.file_size for each in inside)
    if size > MOST_BYTES or len(inside) > MOST_MEMBERS:
        found = f"{counted(len(inside), 'file')} of {size / 2**30:.1f} GiB unpacked"
        raise VptError(
            f"{path}: {found}, expected {MOST_MEMBERS} and {MOST_BYTES // 2**30} GiB at most; unpack it, "
            "and give the folder of one series"
        )
    names = sorted(each.filename for each in inside)
    read = [name for name in names if not _is_passed_over(Path(name)) and "__MACOSX" not in name]
    return [DicomFile(path, name) for name in read]


def _is_passed_over(path: Path) -> bool:
    """What is hidden or the system's own, and the list of a disk's files, damaged or not."""
    return is_hidden(path) or path.name.upper() == LIST


def series_of(folder: Path) -> str | None:
    """The SeriesInstanceUID of the first DICOM file in a folder; None where it has none, or cannot be read."""
    if not may_enter(folder):
        return None
    first = next((each for each in sorted(folder.iterdir()) if is_dicom(each)), None)
    try:
        header = _header(DicomFile(first)) if first else None
    except VptError:
        return None
    return str(header.get("SeriesInstanceUID") or "") or None if header else None


def _header(file: DicomFile) -> Header | None:
    """None of what is no DICOM, and of a DICOMDIR."""
    from pydicom.errors import InvalidDicomError

    called = file.name.lower().endswith(ENDINGS)
    with guarded(file):
        try:
            data = file.read(pixels=False)
        except InvalidDicomError:
            if called:
                damaged = VptError(f"{file}: no DICOM inside, or damaged; copy or export it again")
                raise other_content(Path(str(file))) or damaged from None
            return None
    kind = data.file_meta.get("MediaStorageSOPClassUID")
    if kind == DIRECTORY:
        return None
    if data.get("SOPClassUID") is None:
        raise VptError(f"{file}: its header is cut off or names no kind of object; copy or export it again")
    return Header(file, data)
