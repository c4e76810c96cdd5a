"""Small files that would become large, or take long: each is refused in a sentence before memory or time is taken."""

from __future__ import annotations

import gzip
import json
import os
import struct
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from limits import within

from vpt.config.files import load_config, parse_override
from vpt.data.check import check_dataset
from vpt.data.layouts import read_dataset, read_labelled
from vpt.errors import VptError
from vpt.files import parse_json, read_json
from vpt.readers import reader_of
from vpt.readers.damage import spoiled
from vpt.tensor_files import read_tensors

CANNOT_HOLD = r"30000x30000x30000 voxels, 54,000,000,000,000 bytes, which the [\d,]+ bytes of .+ cannot hold"


def refused(match: str) -> Any:
    return pytest.raises(VptError, match=match)


# --- YAML and JSON ----------------------------------------------------------------------------------------------------

LEVELS = "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 10))
YAMLS = {
    "aliases": (f"a0: &a0 [x]\n{LEVELS}", "more than 20000 values with its aliases written out"),
    "merge keys": (
        "a0: &a0 {x: 1}\n" + "".join(f"a{k}: &a{k} {{<<: [{', '.join([f'*a{k - 1}'] * 9)}]}}\n" for k in range(1, 10)),
        "more than 20000 values",
    ),
    "itself": ("data: &a [*a]\n", "holds itself by an alias"),
    "deep": (f"data: {'[' * 100_000}\n", "more than 32 levels deep"),
    "deep blocks": ("".join(f"{' ' * k}a:\n" for k in range(500)), "more than 32 levels deep"),
    "digits": (f"seed: {'9' * 50_000}\n", "not readable as YAML"),
    "no date": ("seed: 2001-99-99\n", "not readable as YAML"),
    "twice": ("train: {epochs: 1}\ntrain: {epochs: 2}\n", "the key 'train' is there twice in one section"),
    "long": ("#" * 2**20, "262145 characters, expected 262144 at most"),
    "code": ("data: !!python/object/apply:os.system [touch /tmp/x]\n", "not readable as YAML"),
}


@pytest.mark.parametrize("name", YAMLS)
def test_yaml(tmp_path: Path, name: str) -> None:
    text, said = YAMLS[name]
    (tmp_path / "config.yaml").write_text(text)
    with within(), refused(rf"config\.yaml: {said}"):
        load_config(tmp_path / "config.yaml")


@pytest.mark.parametrize("value", ["&a [*a]", "[" * 5000, "9" * 6000, "2001-99-99", "{a: 1, a: 2}"])
def test_settings_of_the_command_line(value: str) -> None:
    with within(), refused(r"^--set optim\.lr=.*; put it in quotes$"):
        parse_override(f"optim.lr={value}")


def test_aliases_that_stay_small_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: {path: x, labels: {a: &two [1, 2], b: 3}}\nplan: {window: *two}\n")
    assert load_config(tmp_path / "config.yaml").plan.window == (1, 2)


JSONS = {
    "deep": ("[" * 200_000, "nested without end"),
    "digits": (f'{{"a": {"9" * 5000}}}', "not usable JSON"),
    "NaN": ('{"a": NaN}', "NaN, which is no number"),
    "infinite": ('{"a": -Infinity}', "-Infinity, which is no number"),
    "twice": ('{"labels": {"a": 1, "a": 2}}', "the key 'a' twice in one object"),
    "half a character": ('{"a": "\\ud800"}', "not usable JSON"),
}


@pytest.mark.parametrize("name", JSONS)
def test_json(tmp_path: Path, name: str) -> None:
    text, said = JSONS[name]
    (tmp_path / "dataset.json").write_text(text)
    with within(), refused(rf"dataset\.json: .*{said}"):
        read_json(tmp_path / "dataset.json")


def test_json_of_whole_characters_is_read() -> None:
    assert parse_json('{"a": "\\ud83d\\ude00", "b": [1, 2.5, null]}', "x") == {"a": "😀", "b": [1, 2.5, None]}


# --- volumes ----------------------------------------------------------------------------------------------------------


def nifti_header(shape: tuple[int, int, int] = (30000, 30000, 30000), offset: float = 352) -> bytes:
    import nibabel as nib

    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((4, 4, 4))
    content = bytearray(header.binaryblock + bytes(4))
    content[40:56] = struct.pack("<8h", 3, *shape, 1, 1, 1, 1)
    content[108:112] = struct.pack("<f", offset)
    content[344:348] = b"n+1\0"
    content[252:256] = struct.pack("<2h", 0, 1)  # an sform
    content[280:328] = struct.pack("<12f", 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    return bytes(content)


@pytest.mark.parametrize("packed", [False, True])
def test_a_nifti_that_claims_more_than_it_holds(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("a.nii.gz" if packed else "a.nii")
    path.write_bytes(gzip.compress(nifti_header() + bytes(1000)) if packed else nifti_header() + bytes(1000))
    for read in (lambda: reader_of(path).voxels(1), lambda: reader_of(path).labels()):
        with within(), refused(CANNOT_HOLD):
            read()


@pytest.mark.parametrize("offset", [float("inf"), float("nan"), 3e9, -5.0])
def test_voxels_that_begin_nowhere(tmp_path: Path, offset: float) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti_header((4, 4, 4), offset) + bytes(200)))
    with within(), refused(r"a\.nii\.gz: its voxels begin at byte .* by its header \(vox_offset\)"):
        reader_of(tmp_path / "a.nii.gz").voxels(1)


def test_gigabytes_of_gzip_behind_the_voxels_are_not_read(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.nii.gz", "wb", 1) as file:
        file.write(nifti_header((4, 4, 4)) + bytes(128))
        for _ in range(40):
            file.write(bytes(2**20))
    with within(), refused(r"a\.nii\.gz: truncated or damaged \(more than 16 MiB behind its voxels\)"):
        reader_of(tmp_path / "a.nii.gz").voxels(1)


def test_zeros_without_end_behind_gzip_are_not_read(tmp_path: Path) -> None:
    """Padding belongs to no member, so that nothing comes out of it."""
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(nifti_header((4, 4, 4)) + bytes(128)))
    with path.open("r+b") as file:
        file.truncate(2**40)  # of which nothing is on the disk
    with within(), refused(r"a\.nii\.gz: truncated or damaged \(1099511627776 packed bytes for 480 bytes of voxels"):
        reader_of(path).voxels(1)


@pytest.mark.parametrize("name", ["dataset.json", "imagesTr/odd", "imagesTr/odd.nii.gz", "odd.dcm", "plan.png"])
def test_a_pipe_in_a_data_set_is_not_waited_for(make_dataset: Callable[..., Path], name: str) -> None:
    root = make_dataset()
    (root / name).unlink(missing_ok=True)
    os.mkfifo(root / name)
    described = name == "dataset.json"
    with within(), refused("a folder, pipe or device, expected a file") if described else nullcontext():
        check_dataset(root)


@pytest.mark.parametrize("target", ["pipe", "/dev/zero"])
def test_json_from_what_is_no_file(tmp_path: Path, target: str) -> None:
    path = tmp_path / "plan.json"
    os.mkfifo(path) if target == "pipe" else path.symlink_to(target)
    with within(), refused(r"plan\.json: a folder, pipe or device, expected a file of JSON; give a file"):
        read_json(path)


def test_too_little_memory_is_said_as_such_and_not_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    with open(path, "wb") as file:
        file.write(nifti_header((1000, 1000, 1000)))
        file.truncate(352 + 2 * 10**9)  # all zeros, and none of them on the disk
    with (
        within(),
        pytest.raises(MemoryError, match=r"a\.nii: 1000x1000x1000 voxels take 0\.931 GiB, .* are free; use a"),
    ):
        reader_of(path).voxels(1)


def test_a_packed_scan_that_does_not_fit_says_how_much_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(nifti_header((100, 100, 100)) + bytes(2 * 10**6)))
    monkeypatch.setattr("vpt.readers.damage.available_memory", lambda: 10**6)
    with pytest.raises(MemoryError, match=r"a\.nii\.gz: 100x100x100 voxels take 0\.00186 GiB, 0\.000931 GiB of memory"):
        reader_of(path).voxels(1)


@pytest.mark.parametrize(
    "said", [OSError(12, "Cannot allocate memory"), MemoryError(), OSError("Error -4 while decompressing")]
)
def test_what_a_library_says_of_too_little_memory_is_not_called_damage(said: Exception) -> None:
    assert isinstance(spoiled("a.nii.gz", said), MemoryError)
    assert isinstance(spoiled("a.nii.gz", OSError("CRC check failed")), VptError)


@pytest.mark.parametrize("absurd", [1e38, 1e-30, 1e7])
def test_voxels_of_absurd_sizes(tmp_path: Path, absurd: float) -> None:
    content = bytearray(nifti_header((4, 4, 4)) + bytes(128))
    content[280:284] = struct.pack("<f", absurd)
    (tmp_path / "a.nii").write_bytes(content)
    with refused(r"a\.nii: (voxels of .* mm .* by its header|its affine .* is singular)"):
        reader_of(tmp_path / "a.nii").voxels(1)


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_a_nrrd(tmp_path: Path, encoding: str) -> None:
    text = f"NRRD0004\ntype: short\ndimension: 3\nsizes: 30000 30000 30000\nendian: little\nencoding: {encoding}\n\n"
    (tmp_path / "a.nrrd").write_bytes(text.encode() + bytes(100))
    with within(), refused(CANNOT_HOLD):
        reader_of(tmp_path / "a.nrrd").voxels(1)


def test_a_metaimage(tmp_path: Path) -> None:
    text = "NDims = 3\nDimSize = 30000 30000 30000\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    (tmp_path / "a.mha").write_bytes(text.encode() + bytes(100))
    with within(), refused(CANNOT_HOLD):
        reader_of(tmp_path / "a.mha").voxels(1)


NRRD = (
    "NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 4 4\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nendian: little\nencoding: raw\n"
)


@pytest.mark.parametrize("field", ["dimension: " + "9" * 2000, "units: " + "x" * 2000, "no field " * 200])
def test_fields_of_a_nrrd_by_which_its_library_would_end_the_process(tmp_path: Path, field: str) -> None:
    """ITK's reader overruns a buffer where it tells of them: SIGSEGV."""
    (tmp_path / "a.nrrd").write_bytes(f"{NRRD}{field}\n\n".encode() + bytes(64))
    with within(), refused(rf"a\.nrrd: a line of {len(field.encode()):,} bytes in its header .*expected 500 at most"):
        reader_of(tmp_path / "a.nrrd").voxels(1)


def test_a_header_of_a_nrrd_without_an_end(tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_bytes(f"{NRRD}{'a:=b' + chr(10)}".encode() * 2**18)
    with within(), refused(r"a\.nrrd: a header of over 1 MiB, or none that ends"):
        reader_of(tmp_path / "a.nrrd").voxels(1)


@pytest.mark.parametrize("line", ["# " + "x" * 5000, "note:=" + "a: b " * 1000, "content: " + "x" * 5000])
def test_what_may_be_long_in_a_nrrd_is_read(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.nrrd").write_bytes(f"{NRRD}{line}\n\n".encode() + bytes(64))
    assert reader_of(tmp_path / "a.nrrd").voxels(1).values().shape == (1, 4, 4, 4)


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("DimSize = " + "9" * 5000, "sizes '9{60}' in its header"),
        ("ElementNumberOfChannels = " + "9" * 5000, "sizes '9{60}' in its header"),
        ("ElementNumberOfChannels =", "sizes '' in its header"),
        ("HeaderSize = " + "9" * 5000, "HeaderSize '9{60}', expected a number of bytes"),
    ],
)
def test_a_metaimage_of_numbers_without_end(tmp_path: Path, field: str, said: str) -> None:
    """Of thousands of digits Python makes no number, but an error."""
    (tmp_path / "a.raw").write_bytes(bytes(64))
    text = f"NDims = 3\n{field}\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = a.raw\n"
    (tmp_path / "a.mhd").write_text(text)
    with within(), refused(rf"a\.mhd: {said}"):
        reader_of(tmp_path / "a.mhd").voxels(1)


# --- arrays, pictures, DICOM ------------------------------------------------------------------------------------------


def test_a_label_of_a_million_million_makes_no_million_names(tmp_path: Path) -> None:
    images, labels = np.zeros((4, 8, 8), np.uint8), np.array([[0], [1], [2], [2**40]])
    sides = {
        f"{side}_{what}": array
        for side in ("train", "val")
        for what, array in zip(("images", "labels"), (images, labels), strict=True)
    }
    np.savez_compressed(tmp_path / "a.npz", **sides)
    with within(), refused(r"a\.npz: a label of 1099511627776, expected at most 99999; number the classes from 0"):
        read_labelled(tmp_path / "a.npz")


def npy(shape: str, kind: str = "|u1") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(64)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (npy("(65000, 65000, 65000)"), "more than the file can hold"),
        (npy("(4, 4, 4)", "|O"), "of type object, expected plain numbers"),
    ],
)
@pytest.mark.parametrize("names", [("imgs", "gts"), ("train_images", "train_labels")])
def test_arrays_that_are_none(tmp_path: Path, array: bytes, said: str, names: tuple[str, str]) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(f"{name}.npy", array)
    read: Callable[[], Any] = lambda: reader_of(tmp_path / "a.npz").voxels(1)  # noqa: E731
    with within(), refused(said):
        read() if names[0] == "imgs" else read_labelled(tmp_path / "a.npz")


def spoilt_picture(path: Path) -> Path:
    """A picture of a few pixels whose header claims hundreds of millions."""
    import zlib

    from PIL import Image

    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    if path.suffix == ".png":
        content[16:24] = struct.pack(">2I", 13000, 13000)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    elif path.suffix == ".gif":
        content[6:10] = struct.pack("<2H", 13000, 13000)
    elif path.suffix == ".bmp":
        content[18:26] = struct.pack("<2i", 13000, 13000)
    else:
        frame = content.index(b"\xff\xc0")
        content[frame + 5 : frame + 9] = struct.pack(">2H", 13000, 13000)
    path.write_bytes(content)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ending", ["png", "gif", "jpg", "bmp"])
def test_pictures_of_hundreds_of_megapixels(tmp_path: Path, ending: str) -> None:
    path = spoilt_picture(tmp_path / f"a.{ending}")
    for read in (lambda: reader_of(path).voxels(1), lambda: reader_of(path).labels(), lambda: reader_of(path).grid()):
        with within(), refused(r"too large an image \(13000x13000, 169 million pixels, expected 67 million at most\)"):
            read()


@pytest.mark.filterwarnings("ignore")
def test_dicom_that_claims_more_pixels_than_it_has(tmp_path: Path) -> None:
    from dicom_series import write_series

    def claim(k: int, data: Any) -> None:
        data.Rows, data.Columns = 60000, 60000

    folder = write_series(tmp_path / "series", change=claim)
    with (
        within(),
        refused(r"its header claims 1 frames of 60000x60000 pixels, 7,200,000,000 bytes, which the 96 bytes"),
    ):
        reader_of(folder).voxels(1)


@pytest.mark.filterwarnings("ignore")
def test_dicom_that_is_deflated_behind_a_long_header(tmp_path: Path) -> None:
    """pydicom inflates such a file at once, whatever comes out: 2 MB are 2 GB."""
    from dicom_series import header
    from pydicom import dcmwrite
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    data = header()
    data.file_meta.MediaStorageSOPInstanceUID = "1.2.3" + "4" * 4000  # the syntax stands behind it
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.is_implicit_VR, data.is_little_endian = False, True
    dcmwrite(tmp_path / "a.dcm", data, enforce_file_format=False)
    with open(tmp_path / "a.dcm", "ab") as file:
        file.write(os.urandom(2**20))
    with within(64), refused(r"a\.dcm: packed whole by deflate, 1\.0 MiB, expected 1 MiB at most"):
        reader_of(tmp_path / "a.dcm").voxels(1)


@pytest.mark.filterwarnings("ignore")
def test_dicom_whose_frames_claim_more_than_their_header(tmp_path: Path) -> None:
    """400 bytes of JPEG 2000, for whose 40,000 x 40,000 pixels their decoder takes 1.6 GB and more."""
    from dicom_series import SHAPE, write_series
    from PIL import Image
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless

    rows, columns = SHAPE[1:]
    made = BytesIO()
    Image.fromarray(np.zeros((rows, columns), np.uint8)).save(made, "JPEG2000", no_jp2=True, num_resolutions=1)
    sizes = struct.pack(">8I", columns, rows, 0, 0, columns, rows, 0, 0)
    large = made.getvalue().replace(sizes, struct.pack(">8I", 40_000, 40_000, 0, 0, 40_000, 40_000, 0, 0))

    def pack(k: int, data: Any) -> None:
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
        data.PixelData = encapsulate([large if k == 3 else made.getvalue()])
        data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
        data.file_meta.TransferSyntaxUID = JPEG2000Lossless

    folder = write_series(tmp_path / "series", change=pack)
    with within(), refused("frame 0 is 40000x40000x1 by itself .rows, columns, samples., its header says 6x8x1"):
        reader_of(folder).voxels(1)


# --- safetensors, tables, names ---------------------------------------------------------------------------------------


def safetensors(header: str, length: int | None = None) -> bytes:
    return (length or len(header)).to_bytes(8, "little") + header.encode() + bytes(64)


@pytest.mark.parametrize(
    "content",
    [
        safetensors("{}", 2**62),
        safetensors('{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},'
                    ' "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]}}'),
        safetensors('{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 64]}}'),
        safetensors('{"a": {"dtype": "F32", "shape": [4000000000], "data_offsets": [0, 16000000000]}}'),
        safetensors("[" * 5000),
    ],
    ids=["length", "overlapping", "overflowing", "longer than the file", "nested"],
)  # fmt: skip
def test_safetensors(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with within(), refused(r"a\.safetensors: not a readable safetensors file \(.+\); copy it again"):
        read_tensors(tmp_path / "a.safetensors", "copy it again")


def test_a_table_with_a_giant_cell(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,label\n" + "x" * 10**6 + ",a\n")
    with within(), refused(r"labels\.csv: line 2: no valid CSV \(field larger than field limit"):
        read_labelled(tmp_path)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("../../outside", "leads into another folder"),
        ("/etc/outside", "leads into another folder"),
        ("a\\b", "leads into another folder"),
        ("..", "is no name of a file"),
        ("x" * 300, "is of 300 bytes, expected 200 at most"),
        ("a\nb", "holds characters that control a terminal or end a line"),
    ],
)
@pytest.mark.parametrize("listed", ["csv", "json"])
def test_a_case_that_is_called_so_that_its_mask_would_leave_the_folder(
    make_dataset: Callable[..., Path], name: str, what: str, listed: str
) -> None:
    root = make_dataset("msd")
    if listed == "json":
        content = json.loads((root / "dataset.json").read_text())
        content["training"][1]["case"] = name
        (root / "dataset.json").write_text(json.dumps(content))
    else:
        (root / "cases.csv").write_text(
            f'image,mask,case\nimagesTr/case_00.nii.gz,labelsTr/case_00.nii.gz,"{name}"\n'
            "imagesTr/case_01.nii.gz,labelsTr/case_01.nii.gz,b\n"
        )
    with refused(rf"the case '.*' {what}; rename it"):
        read_dataset(root / "cases.csv" if listed == "csv" else root)


@pytest.mark.parametrize("recursive", [False, True])
def test_links_in_circles(make_dataset: Callable[..., Path], tmp_path: Path, recursive: bool) -> None:
    from vpt.data.scans import find_scans
    from vpt.use.archives.finding import find_archive
    from vpt.use.archives.outputs import plan_outputs

    root = make_dataset()
    (root / "imagesTr" / "x_0000.nii.gz").symlink_to("x_0000.nii.gz")
    (root / "imagesTr" / "back").symlink_to("..")
    with within(), refused("an image without a label"):
        read_dataset(root)
    found = find_archive([root / "imagesTr"], "volumes", 1, tmp_path / "out", recursive=recursive)
    cases, _ = plan_outputs(found.cases, tmp_path / "out", False, False)
    assert len(cases) == len(find_scans(root / "imagesTr", 1)) == 5  # the circle fails by itself, and alone
