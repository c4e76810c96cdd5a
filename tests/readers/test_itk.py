"""NRRD and MetaImage: read at ITK's place, masks in the scan's format at the scan's place, headers not believed."""

from __future__ import annotations

import builtins
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpt.data.label_maps import read_label
from vpt.errors import VptError
from vpt.readers import is_volume, reader_of
from vpt.readers.itk import ItkReader, affine_of
from vpt.readers.metaimage import MetaImageReader
from vpt.readers.nrrd import NrrdReader

itk = pytest.importorskip("SimpleITK")

VOXELS = np.arange(120, dtype=np.int16).reshape(4, 5, 6)  # X, Y, Z
ANGLE = np.radians(20)
TURNED = (np.cos(ANGLE), -np.sin(ANGLE), 0.0, np.sin(ANGLE), np.cos(ANGLE), 0.0, 0.0, 0.0, 1.0)
ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd")


def scan(voxels: np.ndarray = VOXELS, *, vector: bool = False, direction: tuple[float, ...] = TURNED) -> itk.Image:
    """Voxels (X, Y, Z), or (channels, X, Y, Z), as SimpleITK's image of 0.8x1.2x2.5 mm."""
    order = (3, 2, 1, 0) if vector else tuple(reversed(range(voxels.ndim)))
    image = itk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(order)), isVector=vector)
    image.SetSpacing((0.8, 1.2, 2.5))
    image.SetOrigin((-10.0, 20.0, 30.5))
    image.SetDirection(direction)
    return image


def save(path: Path, image: itk.Image | None = None, *, packed: bool = False) -> Path:
    itk.WriteImage(scan() if image is None else image, str(path), packed)
    return path


def edit(path: Path, old: str, new: str) -> Path:
    content = path.read_bytes()
    assert old.encode() in content
    path.write_bytes(content.replace(old.encode(), new.encode(), 1))
    return path


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", ENDINGS)
def test_voxels_and_place_are_those_of_the_same_scan_as_nifti(tmp_path, ending, packed):
    reader, nifti = reader_of(save(tmp_path / f"a{ending}", packed=packed)), reader_of(save(tmp_path / "a.nii.gz"))
    found, same = reader.voxels(1), nifti.voxels(1)
    assert np.array_equal(found.values(), same.values())
    assert np.array_equal(found.values()[0], VOXELS)
    assert found.grid.matches(same.grid, 1e-5)
    assert reader.grid().matches(nifti.grid(), 1e-5)
    assert reader.doubts() == []
    assert (reader.count_channels(), reader.is_deep(), reader.kind, reader.unit) == (1, True, "volumes", "mm")


@settings(max_examples=15, deadline=None)
@given(
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from((-1.0, 1.0))] * 3),
    st.floats(-0.5, 0.5),
    st.sampled_from(ENDINGS[::2]),
)
def test_any_axes_are_at_the_place_that_nibabel_says(tmp_path_factory, order, signs, angle, ending):
    folder = tmp_path_factory.mktemp("axes")
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    image = scan(direction=tuple((np.eye(3)[list(order)] * signs @ turn).ravel()))
    found = reader_of(save(folder / f"a{ending}", image)).grid()
    assert np.allclose(found.affine, nib.load(save(folder / "a.nii", image)).affine, atol=1e-4)


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_several_components_are_channels(tmp_path, ending):
    voxels = np.random.default_rng(0).normal(size=(2, 4, 5, 6)).astype(np.float32)
    reader = reader_of(save(tmp_path / f"a{ending}", scan(voxels, vector=True)))
    assert reader.count_channels() == 2
    assert np.array_equal(reader.voxels(2).values(), voxels)
    with pytest.raises(VptError, match="is 4-D with 2 channels, expected 1"):
        reader.voxels(1)
    with pytest.raises(VptError, match="is 4-D, expected a 3-D label map"):
        reader.labels()
    with pytest.raises(VptError, match="is 4-D, expected a 3-D label map"):
        reader.label_grid()


def test_a_file_per_channel_of_any_format(tmp_path):
    files = [save(tmp_path / "a_0000.nrrd"), save(tmp_path / "a_0001.nrrd", scan(VOXELS + 1))]
    assert np.array_equal(reader_of(files).voxels(2).values(), [VOXELS, VOXELS + 1])
    save(files[1], scan(VOXELS[:3]))
    with pytest.raises(VptError, match=r"a_0001\.nrrd: not on the grid of .*a_0000\.nrrd: shape 3x5x6 against 4x5x6"):
        reader_of(files).voxels(2)


def test_one_slice_is_a_volume_of_one(tmp_path):
    flat = itk.GetImageFromArray(VOXELS[:, :, 0].T.copy())
    reader = reader_of(save(tmp_path / "a.nrrd", flat))
    assert reader.voxels(1).shape == (1, 4, 5, 1)
    reader.write_mask(tmp_path / "m.nrrd", reader.mask(np.ones((4, 5, 1), np.uint8)))
    assert itk.ReadImage(str(tmp_path / "m.nrrd")).GetSize() == (4, 5)


def test_what_is_not_finite_or_no_number_is_refused(tmp_path):
    bad = VOXELS.astype(np.float32)
    bad[0, 0, 0] = np.nan
    with pytest.raises(VptError, match="1 of 120 voxels are not finite"):
        reader_of(save(tmp_path / "a.nrrd", scan(bad))).voxels(1)
    with pytest.raises(VptError, match=r"label values 0\.5 are not whole numbers"):
        reader_of(save(tmp_path / "b.mha", scan(np.full((4, 5, 6), 0.5, np.float32)))).labels()


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_no_damaged_byte_of_packed_voxels_goes_unseen(tmp_path, ending):
    noise = np.random.default_rng(0).integers(0, 9, (4, 5, 6)).astype(np.int16)
    path = save(tmp_path / f"a{ending}", scan(noise), packed=True)
    whole = path.read_bytes()
    for place in range(len(whole) - 40, len(whole), 3):
        content = bytearray(whole)
        content[place] ^= 4
        path.write_bytes(content)
        with pytest.raises(VptError, match="truncated or damaged"):
            reader_of(path).voxels(1)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_every_plain_type_is_read_as_itk_reads_it(tmp_path, ending, kind):
    path = save(tmp_path / f"a{ending}", scan(VOXELS.astype(kind)))
    assert np.array_equal(reader_of(path).read(0)[0].stored, itk.GetArrayFromImage(itk.ReadImage(str(path))).T)


def test_other_ways_to_write_the_same(tmp_path):
    swapped = VOXELS.astype(">i2").tobytes(order="F")
    nrrd = edit(edit(save(tmp_path / "a.nhdr"), "endian: little", "endian: big"), "data file", "byte skip: 7\ndatafile")
    (tmp_path / "a.raw").write_bytes(bytes(7) + swapped)
    assert np.array_equal(reader_of(nrrd).voxels(1).values()[0], VOXELS)
    edit(nrrd, "byte skip: 7", "byte skip: -1")
    assert np.array_equal(reader_of(nrrd).voxels(1).values()[0], VOXELS)
    meta = edit(save(tmp_path / "b.mhd"), "OrderMSB = False", "OrderMSB = True\nHeaderSize = -1")
    (tmp_path / "b.raw").write_bytes(bytes(9) + swapped)
    assert np.array_equal(reader_of(meta).voxels(1).values()[0], VOXELS)
    edit(meta, "HeaderSize", "ElementToIntensityFunctionSlope = 2\nElementToIntensityFunctionOffset = -5\nHeaderSize")
    assert np.array_equal(reader_of(meta).voxels(1).values()[0], VOXELS * 2.0 - 5)


@pytest.mark.parametrize("place", [0, 3])
def test_channels_of_a_nrrd_lie_first_or_last(tmp_path, place):
    voxels = np.random.default_rng(0).integers(0, 99, (4, 4, 4, 4)).astype(np.uint8)  # X, Y, Z, channels
    path = save(tmp_path / "a.nrrd", scan(voxels.transpose(3, 0, 1, 2), vector=True))
    head = path.read_bytes().partition(b"\n\n")[0].decode()
    if place == 3:
        found = next(line for line in head.splitlines() if line.startswith("space directions"))
        axes = found.replace("none ", "") + " none"
        head = head.replace(found, axes).replace("vector domain domain domain", "domain domain domain list")
    stored = voxels if place == 3 else voxels.transpose(3, 0, 1, 2)
    path.write_bytes(head.encode() + b"\n\n" + stored.tobytes(order="F"))
    assert np.array_equal(reader_of(path).voxels(4).values(), voxels.transpose(3, 0, 1, 2))


# --- masks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_mask_is_like_its_scan_and_carries_none_of_its_texts(tmp_path, ending):
    image = scan()
    image.SetMetaData("PatientName", "DOE^JANE")
    reader = reader_of(save(tmp_path / f"a{ending}", image))
    labels = (VOXELS % 3).astype(np.uint8)
    path = tmp_path / f"mask{reader.mask_endings[0]}"

    reader.write_mask(path, reader.mask(labels))

    assert path.suffix == ending.replace("hdr", "rrd").replace("mhd", "mha")
    assert b"DOE" not in path.read_bytes()
    again = itk.ReadImage(str(path))
    assert np.allclose(affine_of(again), affine_of(image))
    found = reader_of(path).labels()
    assert np.array_equal(found.array, labels)
    assert found.ids == (0, 1, 2)
    assert found.grid.matches(reader.grid(), 1e-6)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_a_mask_can_be_written_in_another_format(tmp_path, ending):
    reader = reader_of(save(tmp_path / "a.nrrd"))
    assert ending in reader.mask_endings
    reader.write_mask(tmp_path / f"m{ending}", reader.mask(np.ones((4, 5, 6), np.uint8)))
    assert reader_of(tmp_path / f"m{ending}").labels().grid.matches(reader.grid(), 1e-4)


def test_a_label_map_object_is_refused_before_it_ends_the_process():
    itk = pytest.importorskip("SimpleITK")
    labels = itk.Cast(itk.Image(3, 4, 5, itk.sitkUInt8), itk.sitkLabelUInt8)

    with pytest.raises(VptError, match="the image given: a LabelMap of SimpleITK, expected a scan"):
        reader_of(labels).voxels(1)


def test_an_image_in_memory_is_a_scan():
    image = scan()
    reader = reader_of(image)
    assert type(reader) is ItkReader
    assert is_volume(image)
    assert reader.name == "the image given"
    assert np.array_equal(reader.voxels(1).values()[0], VOXELS)
    mask = reader.mask(np.ones((4, 5, 6), np.uint8))
    assert (mask.GetSpacing(), mask.GetOrigin()) == (pytest.approx(image.GetSpacing()), image.GetOrigin())


# --- doubts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("units", "mm", "said"),
    [("um", 0.001, "multiplied by 0.001"), ("cm", 10.0, "multiplied by 10"), ("mm", 1.0, ""), ("ell", 1.0, "count as")],
)
@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_units_are_converted_and_said(tmp_path, ending, units, mm, said):
    path = save(tmp_path / f"a{ending}")
    if ending == ".nrrd":
        edit(path, "kinds:", f'space units: "{units}" "{units}" "{units}"\nkinds:')
    else:
        edit(path, "ElementSpacing", f"DistanceUnits = {units}\nElementSpacing")
    reader = reader_of(path)
    assert reader.grid().spacing == pytest.approx((0.8 * mm, 1.2 * mm, 2.5 * mm))
    assert [said in text for text in reader.doubts() if "scanner" not in text] == ([True] if said else [])
    reader.write_mask(tmp_path / f"m{ending}", reader.mask(np.ones((4, 5, 6), np.uint8)))
    assert reader_of(tmp_path / f"m{ending}").grid().matches(reader.grid())


@pytest.mark.parametrize(
    ("ending", "old", "new", "said"),
    [
        (".nrrd", "space: left-posterior-superior", "space dimension: 3", "no `space`, so what its directions mean"),
        (".nrrd", "space: left-posterior-superior", "space: scanner-xyz", "its `space` is scanner-xyz, which names no"),
        (".mha", "TransformMatrix", "Comment", "no TransformMatrix, so its orientation is a guess"),
        (".mha", "ElementSpacing", "Comment", "no ElementSpacing, so its voxels count as 1 mm"),
        (".nrrd", "(0,0,2.5)", "(0,0.3,2.5)", "sheared by"),
    ],
)
def test_a_header_that_says_too_little_or_too_much_is_doubted(tmp_path, ending, old, new, said):
    path = edit(save(tmp_path / f"a{ending}"), old, new)
    assert any(text.startswith(said) for text in reader_of(path).doubts())


@pytest.mark.parametrize(
    ("spacings", "said"),
    [
        ("", "no `spacings`, so its voxels count as 1 mm"),
        ("spacings: 1 1 NaN\n", "`spacings` 1 1 NaN, so its voxels count as 1 mm"),
        ("spacings: 1 1 2\n", ""),
    ],
)
def test_a_nrrd_that_does_not_say_the_size_of_its_voxels_is_doubted(tmp_path, spacings, said):
    path = tmp_path / "a.nrrd"
    text = f"NRRD0004\ntype: short\ndimension: 3\nsizes: 4 5 6\n{spacings}endian: little\nencoding: raw\n\n"
    path.write_bytes(text.encode() + VOXELS.astype("<i2").tobytes(order="F"))

    assert [one for one in reader_of(path).doubts() if "count as 1 mm" in one] == (
        [f"{said}; write their true size into the header"] if said else []
    )


def test_bytes_of_a_header_are_not_counted_among_those_of_voxels(tmp_path):
    path = save(tmp_path / "a.nrrd")
    path.write_bytes(path.read_bytes()[:-10])

    with pytest.raises(VptError, match=r"which the [\d,]+ bytes of a\.nrrd with its header cannot hold"):
        reader_of(path).voxels(1)


# --- what is refused --------------------------------------------------------------------------------------------------

HUGE = "30000 30000 30000"


@pytest.mark.parametrize(
    ("ending", "old", "new", "sentence"),
    [
        (".nrrd", "sizes: 4 5 6", f"sizes: {HUGE}", "its header claims 30000x30000x30000 voxels, 54,000,000,000,000"),
        (".mha", "DimSize = 4 5 6", f"DimSize = {HUGE}", "its header claims 30000x30000x30000 voxels"),
        (".nhdr", "sizes: 4 5 6", f"sizes: {HUGE}", "its header claims 30000x30000x30000 voxels"),
        (".nhdr", "data file: a.raw", "data file: ../a.raw", r"voxels are in '\.\./a\.raw', expected one file beside"),
        (".mhd", "= a.raw", "= /etc/passwd", "voxels are in '/etc/passwd', expected one file beside the header"),
        (".mhd", "= a.raw", "= a%03d.raw 1 6 1", "expected one file beside the header"),
        (".nhdr", "data file: a.raw", "data file: LIST", "expected one file beside the header"),
        (".nhdr", "data file: a.raw", "data file: http://a.org/a.raw", "expected one file beside the header"),
        (".mhd", "= a.raw", "= b.raw", r"voxels are in b\.raw, which is not there"),
        (".nrrd", "type: short", "type: block", "not a NRRD, or damaged in its header"),
        (".nrrd", "encoding: raw", "encoding: bz2", "encoding 'bz2', expected raw or gzip"),
        (".nrrd", "sizes: 4 5 6", "sizes: 4 -5 6", "expected whole numbers"),
        (".mha", "MET_SHORT", "MET_OTHER", "not a MetaImage, or damaged in its header"),
        (".mha", "MET_SHORT", "MET_LONG", "of type MET_LONG, which has 4 bytes in some programs and 8 in others"),
        (".nhdr", "data file", "line skip: 3\ndata file", r"skips 3 lines and 0 bytes of a\.raw; save it as \.nrrd"),
        (".mha", "BinaryData = True", "BinaryData = False", "voxels as text, expected binary"),
    ],
)
def test_a_header_is_not_believed(tmp_path, ending, old, new, sentence):
    (tmp_path / "in").mkdir()
    path = edit(save(tmp_path / f"in/a{ending}"), old, new)
    (tmp_path / "a.raw").write_bytes(bytes(240))
    for work in (lambda reader: reader.grid(), lambda reader: reader.voxels(1)):
        with pytest.raises(VptError, match=sentence) as caught:
            work(reader_of(path))
        assert str(caught.value).startswith(str(path))


def test_voxels_are_not_read_through_a_link_out_of_the_folder(tmp_path):
    (tmp_path / "in").mkdir()
    path = save(tmp_path / "in/a.mhd")
    os.replace(tmp_path / "in/a.raw", tmp_path / "secret")
    (tmp_path / "in/a.raw").symlink_to(tmp_path / "secret")
    with pytest.raises(VptError, match="a link out of its folder"):
        reader_of(path).voxels(1)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mhd", ".nhdr"])
@pytest.mark.parametrize("cut", [1, 60, 150])
def test_a_file_cut_short_is_refused_never_half_read(tmp_path, ending, packed, cut):
    noise = np.random.default_rng(0).integers(-30000, 30000, (4, 5, 6)).astype(np.int16)
    path = save(tmp_path / f"a{ending}", scan(noise), packed=packed)
    data = next((file for file in tmp_path.iterdir() if "raw" in file.suffix), path)
    data.write_bytes(data.read_bytes()[:-cut])
    with pytest.raises(VptError, match=rf"a{ending}: ") as caught:
        reader_of(path).voxels(1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_files_that_are_none_are_named(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(VptError, match="no such file"):
        reader_of(path).grid()
    for content, sentence in [
        (b"", "an empty file"),
        (b"no scan\n" * 9, "damaged in its header"),
        (b"\0" * 99, "not a"),
    ]:
        path.write_bytes(content)
        with pytest.raises(VptError, match=sentence):
            reader_of(path).voxels(1)


def test_without_simpleitk_one_sentence_says_how_to_install_it(tmp_path, monkeypatch):
    path, real = save(tmp_path / "a.nrrd"), builtins.__import__

    def without(name, *rest, **options):
        if name == "SimpleITK":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(VptError, match=r"a\.nrrd: needs SimpleITK, .* pip install 'vpt\[itk\]', or convert it"):
        reader_of(path).voxels(1)


def test_a_scan_names_the_files_that_it_needs(tmp_path):
    for ending, reader in ((".nrrd", NrrdReader), (".nhdr", NrrdReader), (".mha", MetaImageReader)):
        path = save(tmp_path / f"a{ending}")
        assert type(reader_of(path)) is reader
        assert reader_of(path).files() == ((path, tmp_path / "a.raw") if ending == ".nhdr" else (path,))
    assert reader_of(save(tmp_path / "b.mhd", packed=True)).files() == (tmp_path / "b.mhd", tmp_path / "b.zraw")


@pytest.mark.data
@pytest.mark.parametrize("name", ["brain1", "brain2", "breast1"])
def test_nrrd_of_the_odd_volumes(data_root, name):
    folder = data_root / "odd_volumes/tumor_nrrd"
    image, label = (reader_of(folder / f"{name}_{what}.nrrd") for what in ("image", "label"))
    found = label.labels()
    assert found.ids == (0, 1)
    assert image.voxels(1).grid.matches(found.grid)
    assert np.allclose(image.grid().affine, affine_of(itk.ReadImage(str(folder / f"{name}_image.nrrd"))))


# --- names of segments ------------------------------------------------------------------------------------------------


def test_slicer_says_what_its_labels_are_called(tmp_path):
    image = scan((VOXELS % 3).astype(np.uint8))
    for key, text in {
        "Segment0_Name": "Leber gefüllt", "Segment0_LabelValue": "2",
        "Segment1_Name": "Segment_2", "Segment1_LabelValue": "1", "Segment2_Name": "no value",
    }.items():  # fmt: skip
        image.SetMetaData(key, text)
    found = reader_of(save(tmp_path / "a.seg.nrrd", image)).labels()
    assert (found.ids, found.names) == ((0, 1, 2), ((2, "Leber gefüllt"),))
    with pytest.raises(VptError, match=r"its segment 2 is called Leber gefüllt, which is label 1 of"):
        read_label(tmp_path / "a.seg.nrrd", {0: "background", 1: "leber_gefüllt", 2: "tumour"}, None, "scan")
    assert reader_of(save(tmp_path / "b.nrrd")).labels().names == ()
