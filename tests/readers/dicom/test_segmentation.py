"""DICOM segmentations: written at the place of the scan, read by other programs, and read back as labels."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_series import ORIGIN, PIXEL, STEP, numbers, write_multiframe, write_series
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from vpt.data.label_maps import read_label
from vpt.errors import VptError
from vpt.readers import Grid, LabelMap, Naming, Reader, reader_of
from vpt.use.evaluation.pairing import pair_masks
from vpt.use.evaluation.scoring import evaluate

OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)
NAMING = Naming({0: "background", 1: "liver", 2: "tumour"}, {"liver": ("10200004", "SCT", "Liver")})


def labels_like(reader: Reader) -> np.ndarray:
    """No two slices alike, none turned onto itself, the third empty."""
    labels = np.zeros(reader.grid().shape, np.uint8)
    labels[1:4, 2:, 0] = 1
    labels[0, 0, 0] = 2
    labels[5, 1:3, 1] = 2
    labels[2:7, 4, -1] = 1
    return labels


def written(reader: Reader, labels: np.ndarray, path: Path, form: Any = "dicom-seg", naming: Naming = NAMING) -> Path:
    mask = reader.mask_as(form, labels, naming)
    reader_of(mask).write_mask(path, mask)
    return path


def points_of(labels: np.ndarray, grid: Grid, id: int, digits: int = 2) -> set[tuple[float, ...]]:
    """World places of the voxels with that id, RAS mm, of so many digits."""
    index = np.argwhere(labels == id)
    return {tuple(point) for point in np.round(index @ grid.affine[:3, :3].T + grid.affine[:3, 3], digits) + 0.0}


def points_by_pydicom(path: Path, number: int, digits: int = 2) -> set[tuple[float, ...]]:
    """The same of a segment, by the positions of its frames alone."""
    data = pydicom.dcmread(path)
    shared = data.SharedFunctionalGroupsSequence[0]
    turn = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    down, across = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    frames = data.pixel_array.reshape(-1, data.Rows, data.Columns)
    found = set()
    for pixels, groups in zip(frames, data.PerFrameFunctionalGroupsSequence, strict=True):
        if data.SegmentationType == "BINARY":
            named = groups if "SegmentIdentificationSequence" in groups else shared  # there if it is one for all
            pixels = pixels * named.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        origin = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        for row, column in np.argwhere(pixels == number):
            point = origin + turn[0] * across * column + turn[1] * down * row
            found.add(tuple(np.round(point * [-1, -1, 1], digits) + 0.0))
    return found


def lie_together(some: set[tuple[float, ...]], others: set[tuple[float, ...]]) -> bool:
    """Whether they are the same places to 0.001 mm; as rounded to 0.01 what is 12.355 may be 12.35 and 12.36."""
    apart = cdist([*some], [*others])
    return len(some) == len(others) and max(apart.min(0).max(), apart.min(1).max()) < 0.001


@pytest.mark.parametrize("form", ["dicom-seg", "dicom-seg-labelmap"])
@pytest.mark.parametrize(
    ("turn", "reverse"), [((1, 0, 0, 0, 1, 0), False), ((1, 0, 0, 0, 1, 0), True), (OBLIQUE, True)]
)
def test_a_segmentation_is_the_same_mask_at_the_same_place(tmp_path, form, turn, reverse):
    reader = reader_of(write_series(tmp_path / "ct", turn=turn, reverse=reverse))
    labels = labels_like(reader)

    path = written(reader, labels, tmp_path / "seg.dcm", form)

    assert np.array_equal(reader_of(path).labels_on(reader.grid()).array, labels)
    for id in (1, 2):
        assert points_by_pydicom(path, id) == points_of(labels, reader.grid(), id)
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    world = np.diag([-1, -1, 1, 1]) @ volume.affine
    for id in (1, 2):
        assert points_of(volume.array, Grid(volume.array.shape, world), id) == points_of(labels, reader.grid(), id)


@given(
    st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: 0.3 < np.linalg.norm(q) < 1.9), st.booleans()
)
@settings(max_examples=6, deadline=None)
def test_so_it_is_in_any_direction(tmp_path_factory, quaternion, reverse):
    axes = np.array(SimpleITK.VersorTransform(list(np.array(quaternion) / np.linalg.norm(quaternion))).GetMatrix())
    turn = [round(float(part), 6) for part in axes.reshape(3, 3).T[:2].ravel()]
    folder = tmp_path_factory.mktemp("turned")
    reader = reader_of(write_series(folder / "ct", turn=turn, reverse=reverse))
    labels = labels_like(reader)

    path = written(reader, labels, folder / "seg.dcm")

    assert np.array_equal(reader_of(path).labels_on(reader.grid()).array, labels)
    assert lie_together(points_by_pydicom(path, 1, digits=9), points_of(labels, reader.grid(), 1, digits=9))


def test_of_a_multiframe_file_too(tmp_path):
    reader = reader_of(write_multiframe(tmp_path / "mr.dcm", order=[3, 1, 4, 0, 2]))
    labels = labels_like(reader)

    path = written(reader, labels, tmp_path / "seg.dcm")

    assert np.array_equal(reader_of(path).labels_on(reader.grid()).array, labels)
    assert points_by_pydicom(path, 1) == points_of(labels, reader.grid(), 1)


def test_it_belongs_to_the_patient_study_and_frame_of_the_series(tmp_path):
    folder = write_series(tmp_path / "ct")
    reader = reader_of(folder)

    made = pydicom.dcmread(written(reader, labels_like(reader), tmp_path / "seg.dcm"))

    scan = pydicom.dcmread(folder / "3_000.dcm")
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert made[keyword].value == scan[keyword].value
    assert made.SeriesInstanceUID != scan.SeriesInstanceUID
    assert (made.Modality, made.SeriesNumber) == ("SEG", 1003)
    types = [segment.SegmentedPropertyTypeCodeSequence[0] for segment in made.SegmentSequence]
    assert [(code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) for code in types] == [
        ("10200004", "SCT", "Liver"),
        ("label-2", "99VPT", "tumour"),
    ]
    referenced = made.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == scan.SeriesInstanceUID
    assert len(referenced.ReferencedInstanceSequence) == 5


def test_an_empty_mask_is_a_segmentation_too(tmp_path):
    reader = reader_of(write_series(tmp_path / "ct"))
    path = written(reader, np.zeros(reader.grid().shape, np.uint8), tmp_path / "seg.dcm")

    assert reader_of(path).labels_on(reader.grid()).ids == (0,)


def test_headers_that_leave_things_out_are_enough(tmp_path):
    def change(k, data):
        data.SpecificCharacterSet = ""
        for keyword in ("PatientID", "StudyID", "AccessionNumber", "StudyTime", "PatientSex"):
            del data[keyword]

    reader = reader_of(write_series(tmp_path / "ct", change=change))
    path = written(reader, labels_like(reader), tmp_path / "seg.dcm")

    assert np.array_equal(reader_of(path).labels_on(reader.grid()).array, labels_like(reader))


def test_a_series_without_a_frame_of_reference_has_no_segmentation(tmp_path):
    def change(k, data):
        del data.FrameOfReferenceUID

    reader = reader_of(write_series(tmp_path / "ct", change=change))

    with pytest.raises(VptError, match=r"ct: has no frame of reference.*leave out --as for NIfTI"):
        reader.mask_as("dicom-seg", labels_like(reader), NAMING)


def test_only_dicom_has_segmentations(tmp_path, save):
    path = save(tmp_path / "a.nii.gz", np.zeros((2, 3, 4), np.int16))

    with pytest.raises(VptError, match=r"a\.nii\.gz: no DICOM series.*leave out --as dicom-seg"):
        reader_of(path).mask_as("dicom-seg", np.zeros((2, 3, 4), np.uint8), NAMING)


def test_of_a_tilted_gantry_it_lies_on_the_frames_as_they_were_taken(tmp_path):
    def change(k, data):
        data.ImagePositionPatient[1] += STEP * np.tan(np.radians(20)) * k

    reader = reader_of(write_series(tmp_path / "ct", numbers((6, 30, 8)), change=change))
    labels = np.zeros(reader.grid().shape, np.uint8)
    labels[2:6, 12:20] = 1  # a straight bar through all slices

    path = written(reader, labels, tmp_path / "seg.dcm")

    made = pydicom.dcmread(path)
    heights = [float(g.PlanePositionSequence[0].ImagePositionPatient[2]) for g in made.PerFrameFunctionalGroupsSequence]
    shift = STEP * np.tan(np.radians(20)) / PIXEL[0]
    for k, frame in enumerate(made.pixel_array[np.argsort(heights)]):
        rows = np.flatnonzero(frame.any(axis=1))
        assert rows[0] == pytest.approx(12 - k * shift, abs=0.51)
        assert len(rows) == 8
    back = reader_of(path).labels_on(reader.grid()).array
    assert 2 * (back & labels).sum() / (back.sum() + labels.sum()) > 0.9


# --- read as labels ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Reader, np.ndarray, Path]:
    """A series, labels on it, and the segmentation of these."""
    folder = tmp_path_factory.mktemp("pair")
    reader = reader_of(write_series(folder / "ct"))
    labels = labels_like(reader)
    return reader, labels, written(reader, labels, folder / "seg.dcm")


def test_segments_are_label_ids_where_a_data_set_reads_them(pair):
    reader, labels, path = pair

    found = read_label(path, {0: "background", 1: "liver", 2: "tumour"}, reader.grid(), "ct")

    assert np.array_equal(found.array, labels)
    with pytest.raises(VptError, match=r"seg\.dcm: label 2 not in 0, 1"):
        read_label(path, {0: "background", 1: "liver"}, reader.grid(), "ct")


@pytest.mark.parametrize(
    "labels",
    [
        {0: "background", 1: "tumour", 2: "liver"},
        {0: "background", 1: "Tumour ", 2: "Liver"},
        {0: "background", 1: "spleen", 2: "LIVER"},
        {0: "background", 1: "tumour", 2: "spleen"},
        {0: "background", 1: "spleen", 2: "spleen_rest", 3: "liver"},
    ],
)
def test_segments_that_are_called_as_another_label_are_refused(pair, labels):
    reader, _, path = pair

    with pytest.raises(
        VptError, match=r"seg\.dcm: its segment . is called (liver|tumour), which is label .*; number the"
    ):
        read_label(path, labels, reader.grid(), "ct")
    assert read_label(path, list(labels), reader.grid(), "ct").ids == (
        0,
        1,
        2,
    )  # without names there are none to differ


def test_segments_that_are_called_otherwise_are_read(pair):
    reader, _, path = pair
    for one, two in (("label 1", "label 2"), ("Leber", "Tumor"), ("Liver", "TUMOUR"), ("organ", "tumour")):
        assert read_label(path, {0: "background", 1: one, 2: two}, reader.grid(), "ct").ids == (0, 1, 2)


def test_frames_are_put_on_a_longer_series_turned_otherwise(pair):
    reader, labels, path = pair
    affine = reader.grid().affine @ np.array([[-1, 0, 0, 7], [0, 0, 1, 0], [0, 1, 0, -2], [0, 0, 0, 1.0]])
    # X turned round, rows and slices exchanged, two slices before the first and three behind the last.

    found = reader_of(path).labels_on(Grid((8, 10, 6), affine)).array

    expected = np.zeros((8, 10, 6), np.uint8)
    expected[:, 2:7] = labels[::-1].transpose(0, 2, 1)
    assert np.array_equal(found, expected)


def test_alone_it_lies_on_the_grid_of_its_own_frames(pair):
    reader, labels, path = pair

    found = reader_of(path).labels()

    assert found.ids == (0, 1, 2)
    for id in (1, 2):
        assert points_of(found.array, found.grid, id) == points_of(labels, reader.grid(), id)


@pytest.mark.parametrize(
    ("move", "sentence"),
    [
        ((0, 0, 1.2), "does not lie on a slice of the scan"),
        ((0.25, 0, 0), "or on its pixels"),
        ((0, 0, 10), "has labels outside of the scan"),
    ],
)
def test_frames_beside_the_scan_are_refused(pair, move, sentence):
    reader, _, path = pair
    affine = reader.grid().affine.copy()
    affine[:3, 3] += move

    with pytest.raises(VptError, match=rf"seg\.dcm: .*{sentence}"):
        reader_of(path).labels_on(Grid(reader.grid().shape, affine))


def test_another_frame_of_reference_is_refused(pair):
    reader, _, path = pair

    with pytest.raises(VptError, match=r"seg\.dcm: a segmentation in another frame of reference than the scan"):
        reader_of(path).labels_on(Grid(reader.grid().shape, reader.grid().affine, "1.2.3"))


def changed(path: Path, target: Path, **values: Any) -> Path:
    data = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(data, keyword, value)
    data.save_as(target)
    return target


def test_probabilities_are_refused(pair, tmp_path):
    reader, _, path = pair

    with pytest.raises(VptError, match="of type SOFT, expected BINARY, FRACTIONAL or LABELMAP"):
        reader_of(changed(path, tmp_path / "a.dcm", SegmentationType="SOFT")).labels_on(reader.grid())


def test_segments_that_share_voxels_are_refused(pair, tmp_path):
    reader, _, path = pair
    data = pydicom.dcmread(path)
    group = data.PerFrameFunctionalGroupsSequence
    group[1].PlanePositionSequence = group[0].PlanePositionSequence
    bits = data.pixel_array.copy()
    bits[1] = bits[0]
    data.PixelData = pydicom.pixels.pack_bits(bits)
    group[1].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 2
    data.save_as(tmp_path / "a.dcm")

    with pytest.raises(VptError, match=r"a\.dcm: segments share voxels \(\d+ of a\.dcm frame 2 and another\)"):
        reader_of(tmp_path / "a.dcm").labels_on(reader.grid())


def test_numbers_above_255_that_the_list_of_segments_leaves_out_are_kept(tmp_path):
    series = reader_of(write_series(tmp_path / "ct"))
    labels = np.zeros(series.grid().shape, np.uint8)
    labels[2:4, 3, 1] = 1
    data = pydicom.dcmread(written(series, labels, tmp_path / "a.dcm", "dicom-seg-labelmap"))
    data.PixelData = (data.pixel_array.astype("<u2") * 300).tobytes()
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.save_as(tmp_path / "a.dcm")

    assert reader_of(tmp_path / "a.dcm").labels_on(series.grid()).ids == (0, 300)


def test_a_scan_is_no_label_and_a_label_no_scan(pair):
    reader, _, path = pair

    with pytest.raises(VptError, match="ct: a folder, expected a label map"):
        reader.labels()
    with pytest.raises(VptError, match=r"seg\.dcm: a DICOM SEG, expected a scan"):
        reader_of(path).voxels(1)


# --- real files -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.data
def test_a_real_segmentation_is_what_itk_has_of_it(data_root, tmp_path):
    folder = data_root / "odd_volumes/dicom_seg"
    reader = reader_of(folder / "ct-3slice")
    theirs = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / "liver_seg.nrrd"))).transpose(2, 1, 0)

    found: LabelMap = reader_of(folder / "liver.dcm").labels_on(reader.grid())

    assert np.array_equal(found.array, theirs)
    assert np.array_equal(reader_of(folder / "liver.dcm").labels().array, theirs)
    path = written(reader, found.array, tmp_path / "mine.dcm", naming=Naming({0: "background", 1: "liver"}))
    assert points_by_pydicom(path, 1) == points_of(found.array, reader.grid(), 1)
    with pytest.raises(VptError, match=r"partial_overlaps\.dcm: segments share voxels"):
        reader_of(folder / "partial_overlaps.dcm").labels_on(reader.grid())


def test_of_probabilities_half_or_more_is_the_segments_and_it_is_said(tmp_path):
    reader = reader_of(write_series(tmp_path / "ct"))
    slices = [pydicom.dcmread(file) for file in sorted((tmp_path / "ct").iterdir())]
    soft = np.zeros((len(slices), slices[0].Rows, slices[0].Columns, 1), np.float32)
    soft[1, 2, 3], soft[1, 2, 4], soft[2, 0, 0] = 0.49, 0.51, 1.0
    described = highdicom.seg.SegmentDescription(
        1,
        "liver",
        pydicom.sr.codedict.codes.SCT.Organ,
        pydicom.sr.codedict.codes.SCT.Liver,
        highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
    )
    made = highdicom.seg.Segmentation(
        slices,
        soft,
        highdicom.seg.SegmentationTypeValues.FRACTIONAL,
        [described],
        pydicom.uid.generate_uid(),
        9,
        pydicom.uid.generate_uid(),
        1,
        "m",
        "m",
        "1",
        "1",
        max_fractional_value=200,
    )
    made.save_as(tmp_path / "seg.dcm")
    label = reader_of(tmp_path / "seg.dcm")
    assert np.argwhere(label.labels_on(reader.grid()).array).tolist() == [[0, 0, 2], [4, 2, 1]]
    assert label.label_doubts() == [
        "probabilities (a SEG of type FRACTIONAL): a voxel is a segment's where they are half or more"
    ]


@pytest.mark.parametrize("form", ["dicom-seg", "dicom-seg-labelmap"])
@pytest.mark.parametrize("turn", [(1, 0, 0, 0, 1, 0), OBLIQUE])
def test_dcmqi_reads_the_same_mask_at_the_same_place(tmp_path, form, turn):
    dcmqi = pytest.importorskip("dcmqi", reason="dcmqi, of the extra dev, is not installed")
    program = Path(dcmqi.__file__).parent / "bin" / "segimage2itkimage"
    reader = reader_of(write_series(tmp_path / "ct", turn=turn))
    labels = labels_like(reader)
    path = written(reader, labels, tmp_path / "seg.dcm", form)
    (tmp_path / "out").mkdir()
    command = [program, "--inputDICOM", path, "--outputDirectory", tmp_path / "out", "-t", "nii"]
    subprocess.run(command, check=True, capture_output=True)
    found: dict[int, set[tuple[float, ...]]] = {}
    for file in (tmp_path / "out").glob("*.nii*"):
        part = reader_of(file).labels()
        for id in part.ids[1:]:
            found.setdefault(id, set()).update(points_of(part.array, part.grid, id))
    assert found == {id: points_of(labels, reader.grid(), id) for id in (1, 2)}


def of_slices(reader: Reader, places: tuple[int, ...], path: Path) -> Path:
    """A segmentation whose frames lie on these slices alone, as empty ones are left out."""
    labels = np.zeros(reader.grid().shape, np.uint8)
    labels[1:4, 2:5, list(places)] = 1
    return written(reader, labels, path)


def saying(path: Path, between: float | None, thick: float | None) -> Path:
    """The same, with another SpacingBetweenSlices and SliceThickness."""
    data = pydicom.dcmread(path)
    measures = data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    for keyword, value in (("SpacingBetweenSlices", between), ("SliceThickness", thick)):
        if value is None:
            measures.pop(keyword, None)
        else:
            setattr(measures, keyword, value)
    data.save_as(path)
    return path


@pytest.mark.parametrize("places", [(0, 2), (0, 4), (0, 2, 4), (1, 2), (0, 1, 3)])
@pytest.mark.parametrize("said", [(STEP, 9.0), (STEP, 1.0), (STEP, None)])
def test_slices_are_as_far_apart_as_the_header_says_whichever_are_there(tmp_path, places, said):
    path = saying(of_slices(reader_of(write_series(tmp_path / "ct")), places, tmp_path / "seg.dcm"), *said)

    grid = reader_of(path).label_grid()

    assert grid.shape[2] == places[-1] - places[0] + 1
    assert grid.spacing[2] == pytest.approx(STEP)


@pytest.mark.parametrize(
    ("places", "said"),
    [((1,), (None, STEP)), ((1, 2), (None, STEP)), ((0, 1, 3), (None, STEP)), ((0, 3, 4), (7.0, STEP))],
)
def test_without_that_they_are_as_far_apart_as_the_closest_frames_of_slices_without_gaps(tmp_path, places, said):
    path = saying(of_slices(reader_of(write_series(tmp_path / "ct")), places, tmp_path / "seg.dcm"), *said)

    grid = reader_of(path).label_grid()

    assert grid.shape[2] == places[-1] - places[0] + 1
    assert grid.spacing[2] == pytest.approx(STEP)


@pytest.mark.parametrize("thick", [2 * STEP, 4 * STEP])
def test_so_are_slices_that_overlap(tmp_path, thick):
    path = saying(of_slices(reader_of(write_series(tmp_path / "ct")), (0, 1, 3), tmp_path / "seg.dcm"), None, thick)
    assert reader_of(path).label_grid().spacing[2] == pytest.approx(STEP)


def test_frames_of_one_slice_whose_places_are_rounded_are_not_taken_for_slices(tmp_path):
    path = of_slices(reader_of(write_series(tmp_path / "ct")), (0, 1, 3), tmp_path / "seg.dcm")
    data = pydicom.dcmread(saying(path, None, STEP))
    place = data.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0].ImagePositionPatient
    before = data.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient
    place[2] = before[2] + 0.001
    data.save_as(path)
    with pytest.raises(VptError, match="do not lie evenly"):
        reader_of(path).label_grid()


def test_a_distance_that_is_rounded_in_the_header_fits_however_many_slices_there_are(tmp_path):
    reader = reader_of(write_series(tmp_path / "ct", numbers((60, 6, 8))))
    path = saying(of_slices(reader, tuple(range(0, 60, 3)), tmp_path / "seg.dcm"), 2.51, None)

    grid = reader_of(path).label_grid()

    assert (grid.shape[2], grid.spacing[2]) == (58, pytest.approx(STEP))


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ((4.0, 3.0), r"its frames do not lie evenly: 5 mm apart, which are no multiples of the 4 mm that its header"),
        (
            (None, STEP),
            r"its frames lie 5 mm apart or more and its slices are 2\.5 mm thick, so empty slices",
        ),
        ((None, 1.0), r"its frames lie 5 mm apart or more and its slices are 1 mm thick, .*; add SpacingBetweenSlices"),
        ((None, None), r"does not say how far apart its slices lie, .*; add SpacingBetweenSlices to its header"),
    ],
)
def test_frames_that_do_not_lie_on_the_slices_of_the_header_are_refused(tmp_path, said, sentence):
    path = saying(of_slices(reader_of(write_series(tmp_path / "ct")), (0, 2), tmp_path / "seg.dcm"), *said)

    with pytest.raises(VptError, match=rf"seg\.dcm: {sentence}"):
        reader_of(path).label_grid()


@pytest.mark.parametrize(("mine", "theirs"), [((0, 2), (2, 4)), ((3,), (0,)), ((1, 3), (0, 4)), ((0, 4), (2,))])
def test_two_segmentations_are_laid_on_the_slices_of_both(tmp_path, mine, theirs):
    reader = reader_of(write_series(tmp_path / "ct"))
    paths = [of_slices(reader, places, tmp_path / f"{places}.dcm") for places in (mine, theirs)]
    (pair,) = pair_masks(*paths).pairs

    grid, same = pair.grids()

    assert grid.matches(same)
    assert grid.spacing[2] == pytest.approx(STEP)
    for mask, places in ((pair.prediction, mine), (pair.reference, theirs)):
        found = mask.read(grid).array
        low = min(*mine, *theirs)
        assert np.flatnonzero(found.any((0, 1))).tolist() == [place - low for place in places]


def test_a_prediction_that_says_no_distance_is_put_on_the_slices_of_the_reference(tmp_path):
    reader = reader_of(write_series(tmp_path / "ct"))
    mine = saying(of_slices(reader, (1, 3), tmp_path / "mine.dcm"), None, None)
    (pair,) = pair_masks(mine, of_slices(reader, (0, 4), tmp_path / "theirs.dcm")).pairs

    grid, _ = pair.grids()

    assert np.flatnonzero(pair.prediction.read(grid).array.any((0, 1))).tolist() == [1, 3]


def test_a_scan_on_whose_grid_frames_are_put_needs_no_distance_in_their_header(tmp_path):
    reader = reader_of(write_series(tmp_path / "ct"))
    path = saying(of_slices(reader, (0, 2), tmp_path / "seg.dcm"), None, None)
    labels = np.zeros(reader.grid().shape, np.uint8)
    nibabel.save(reader.mask(labels), tmp_path / "mask.nii.gz")

    for pair in (*pair_masks(tmp_path / "mask.nii.gz", path).pairs, *pair_masks(path, tmp_path / "mask.nii.gz").pairs):
        assert all(grid.matches(reader.grid()) for grid in pair.grids())


@pytest.mark.parametrize("said", [(None, 2 * STEP), (None, STEP / 5), (None, None)])
@pytest.mark.parametrize("which", ["prediction", "reference"])
def test_beside_a_nifti_a_segmentation_is_scored_on_its_slices_whatever_its_header_says(tmp_path, said, which):
    reader = reader_of(write_series(tmp_path / "ct", numbers((20, 6, 8))))
    true = np.zeros(reader.grid().shape, np.uint8)
    true[1:4, 2:5, 4:15] = 1
    mine = np.roll(true, 1, 0)
    for name, labels in (("reference", true), ("prediction", mine)):
        nibabel.save(reader.mask(labels), tmp_path / f"{name}.nii.gz")
        saying(written(reader, labels, tmp_path / f"{name}.dcm"), *said)
    files = {name: tmp_path / f"{name}.{'dcm' if name == which else 'nii.gz'}" for name in ("prediction", "reference")}

    found = evaluate(*files.values()).cases[0].scores[1]

    assert found == evaluate(tmp_path / "prediction.nii.gz", tmp_path / "reference.nii.gz").cases[0].scores[1]


@pytest.mark.parametrize(("gap", "thick"), [(2.5, 5.0), (1.0, 2.0), (3.0, 3.0)])
def test_two_segmentations_without_a_distance_score_as_their_scans_slices_lie(tmp_path, gap, thick):
    volumes = []
    for between in (gap, None):
        paths = []
        for name, columns in (("prediction", slice(2, 5)), ("reference", slice(1, 4))):
            reader = reader_of(write_series(tmp_path / "ct", numbers((9, 6, 8)), change=apart(gap)))
            labels = np.zeros(reader.grid().shape, np.uint8)
            labels[columns, 2:5, 3:6] = 1
            paths.append(saying(written(reader, labels, tmp_path / f"{name}.dcm"), between, thick))
        volumes.append(evaluate(*paths).cases[0].scores[1])
    assert volumes[0] == volumes[1]
    assert volumes[0].volume_ref_ml == pytest.approx(27 * PIXEL[0] * PIXEL[1] * gap / 1000)


def test_two_segmentations_of_slices_with_gaps_are_refused_without_a_distance(tmp_path):
    paths = []
    for name in ("prediction", "reference"):
        reader = reader_of(write_series(tmp_path / "ct", numbers((9, 6, 8)), change=apart(10.0)))
        labels = np.zeros(reader.grid().shape, np.uint8)
        labels[1:4, 2:5, 3:6] = 1
        paths.append(saying(written(reader, labels, tmp_path / f"{name}.dcm"), None, 1.0))
    with pytest.raises(VptError, match=r"frames lie 10 mm apart or more and its slices are 1 mm thick"):
        evaluate(*paths)


def apart(gap: float) -> Any:
    """A change of a series: its slices lie so far apart."""

    def change(k: int, data: pydicom.Dataset) -> None:
        data.ImagePositionPatient = [ORIGIN[0], ORIGIN[1], float(ORIGIN[2]) + gap * k]

    return change
