"""What a file is by its first bytes, whatever it is called: for what is said of one that its own format cannot read."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from vpt.errors import VptError
from vpt.files import left_in_place
from vpt.readers.damage import is_withheld, withheld

HEAD = 4096  # bytes
LIST = "DICOMDIR"  # of the DICOM files on a disk
STARTS: tuple[tuple[bytes, str, tuple[str, ...]], ...] = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image", (".png",)),
    (b"\xff\xd8\xff", "a JPEG image", (".jpg", ".jpeg", ".jpe", ".jfif")),
    (b"GIF8", "a GIF image", (".gif",)),
    (b"II*\0", "a TIFF image", (".tif", ".tiff")),
    (b"MM\0*", "a TIFF image", (".tif", ".tiff")),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image", (".jp2",)),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image", (".j2k", ".jp2")),
    (b"NRRD000", "a NRRD volume", (".nrrd", ".nhdr")),
    (b"ObjectType", "a MetaImage volume", (".mha", ".mhd")),
    (b"PK\x03\x04", "a zip archive", (".zip", ".npz")),
)
PHONES = tuple(b"ftyp" + brand for brand in (b"avif", b"avis", b"heic", b"heix", b"mif1", b"hevc"))
NIFTI = (b"n+1\0", b"n+2\0")


def in_place_of(path: Path) -> str:
    """What lies where a file should be, and is none, in words."""
    if path.is_symlink() and not path.exists():
        return f"a link to {os.readlink(path)}, which is not there"
    return "a folder" if path.is_dir() else "no such file" if not path.exists() else "a pipe or a device"


def other_content(path: Path) -> VptError | None:
    """What to say of a file whose content is of another format than its name says, or that the system does not give;
    None where that is not known.
    """
    try:
        if not path.is_file():
            return None
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        return withheld(path, error) if is_withheld(error) else None
    if what := left_in_place(path):
        return VptError(f"{path}: {what}")
    if (text := _one_line(head)) and _ending(Path(text)) == _ending(path) and "://" not in text and " " not in text:
        return VptError(
            f"{path}: a link to {text} that a copy left as a text file; make it a link again (cp -a keeps them, git "
            "with core.symlinks=true), or copy what it leads to"
        )
    if head[4:12] in PHONES:
        return VptError(f"{path}: an AVIF or HEIC image by its content, which is not read; convert it to PNG")
    what, endings = _format_of(head)
    if what and path.name.upper() == LIST:
        return VptError(f"{path}: lists the DICOM files of a disk, and is no scan; give the folder of one series on it")
    if not what or path.name.lower().endswith(endings):
        return None
    return VptError(f"{path}: {what} by its content, not what its name says; rename it to {endings[0]}")


def _ending(path: Path) -> str | None:
    """`.nii.gz`, `.png`; None where there is none."""
    return "".join(path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:]).lower() or None


def _one_line(head: bytes) -> str:
    """The text of a file that holds nothing but a line of it; "" of others."""
    try:
        text = head.decode().strip() if len(head) < HEAD else ""
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() else ""


def _format_of(head: bytes) -> tuple[str, tuple[str, ...]]:
    if head[128:132] == b"DICM":
        return "a DICOM file", (".dcm", ".dicom", ".ima")
    if _is_nifti(head):
        return "a NIfTI volume", (".nii",)
    if _is_nifti(_inflated(head)):
        return "a NIfTI volume, packed with gzip,", (".nii.gz",)
    return next(((what, endings) for start, what, endings in STARTS if head.startswith(start)), ("", ()))


def _inflated(head: bytes) -> bytes:
    """What the start of a gzip file holds at its start; nothing of what is none."""
    try:
        return zlib.decompressobj(31).decompress(head, 400)
    except zlib.error:
        return b""


def _is_nifti(head: bytes) -> bool:
    return head[344:348] == NIFTI[0] or head[4:8] == NIFTI[1]
