"""The plan follows from the training cases' own headers and voxels, and says why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from vpt.data.cases import SegmentationSet
from vpt.data.layouts import read_dataset
from vpt.data.plan import ORIENTATIONS, Percentiles, Plan, Window
from vpt.data.planned import EncoderInput, Wishes
from vpt.data.planning import make_plan
from vpt.data.splits import read_splits
from vpt.errors import VptError
from vpt.readers import reader_of

ENCODER = EncoderInput(native_size=64, patch=8)
STORED = ["RAS", "LPS", "PSR", "SAL", "IRA"]


def stored_as(array: np.ndarray, affine: np.ndarray, axcodes: str) -> nib.Nifti1Image:
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    image = nib.Nifti1Image(array, affine)
    return image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(axcodes)))


def write(root: Path, shapes, spacings, *, stored="RAS", channels=("MRI",), image=None) -> SegmentationSet:
    """A data set of one case per shape and spacing, given along R, A, S; half of every volume is labelled 1."""
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for number, (shape, spacing) in enumerate(zip(shapes, spacings, strict=True)):
        label = np.zeros(shape, np.uint8)
        label[: shape[0] // 2] = 1
        voxels = np.arange(label.size, dtype=np.float32).reshape(shape) if image is None else image(label)
        affine = np.diag([*spacing, 1.0])
        nib.save(stored_as(label, affine, stored), root / f"labelsTr/c{number}.nii.gz")
        for channel in range(len(channels)):
            nib.save(stored_as(voxels, affine, stored), root / f"imagesTr/c{number}_{channel:04d}.nii.gz")
    content = {"channel_names": dict(enumerate(channels)), "labels": {"background": 0, "organ": 1}}
    (root / "dataset.json").write_text(json.dumps(content))
    return read_dataset(root)


def plan_of(
    root: Path, shape, spacing, *, stored="RAS", channels=("MRI",), image=None, encoder=ENCODER, **wishes
) -> Plan:
    dataset = write(root, [shape], [spacing], stored=stored, channels=channels, image=image)
    return make_plan(dataset, dataset.cases, encoder, Wishes(**wishes))


# --- plane ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize(
    ("plane", "across", "down", "right"),
    # the world axis (0 R, 1 A, 2 S) that slices, rows and columns run along, and its sign
    [
        ("axial", (2, 1), (1, -1), (0, -1)),  # feet to head; anterior on top; the patient's right on the left
        ("coronal", (1, -1), (2, -1), (0, -1)),  # front to back; head on top; the patient's right on the left
        ("sagittal", (0, -1), (2, -1), (1, -1)),  # right to left; head on top; anterior on the left
    ],
)
def test_slices_lie_as_radiologists_view_them(tmp_path, stored, plane, across, down, right):
    shape, spacing = (5, 6, 7), np.array([1.0, 2.0, 3.0])
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    for axis in range(3):
        world = (index * spacing + [-3, 4, 10])[..., axis].astype(np.float32)  # each voxel holds its own position in mm
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = -3, 4, 10
        nib.save(stored_as(world, affine, stored), tmp_path / f"{axis}.nii.gz")
    for direction, (axis, sign) in enumerate((across, down, right)):
        volume = reader_of(tmp_path / f"{axis}.nii.gz").voxels(1).oriented(ORIENTATIONS[plane]).values()[0]
        assert np.allclose(np.diff(volume, axis=direction), sign * spacing[axis])


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize(("thick", "plane"), [(0, "sagittal"), (1, "coronal"), (2, "axial")])
def test_slices_are_cut_across_the_thick_axis_wherever_it_is_stored(tmp_path, stored, thick, plane):
    shape, spacing = [40, 40, 40], [1.0, 1.0, 1.0]
    shape[thick], spacing[thick] = 8, 4.0
    plan = plan_of(tmp_path / "d", shape, spacing, stored=stored)
    assert (plan.plane, plan.orientation) == (plane, ORIENTATIONS[plane])
    assert "thickest" in plan.reasons["plane"]
    assert f"{plane} 4.00" in plan.reasons["plane"]


@pytest.mark.parametrize("spacing", [(1, 1, 1), (1.4, 1, 1), (1, 1.4, 1.2)])
def test_cubes_are_cut_axially(tmp_path, spacing):
    assert plan_of(tmp_path / "d", (20, 20, 20), spacing).plane == "axial"


# --- size and pixel ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("longer", "size"),
    [(20, 64), (64, 64), (65, 72), (100, 104), (256, 256), (400, 256)],  # native, next patch up, at most 256
)
def test_image_size_gives_every_voxel_a_pixel_within_what_the_encoder_takes(tmp_path, longer, size):
    plan = plan_of(tmp_path / "d", (longer, 12, 4), (1.0, 1.0, 5.0))
    assert plan.image_size == size
    assert plan.image_size % ENCODER.patch == 0
    assert f"{longer} voxels" in plan.reasons["image_size"]


def test_image_size_goes_to_twice_that_of_a_large_encoder(tmp_path):
    assert plan_of(tmp_path / "d", (900, 12, 2), (0.5, 0.5, 5), encoder=EncoderInput(224, 16)).image_size == 448


def test_pixels_cover_95_percent_of_the_slices(tmp_path):
    millimetres = [40 + k for k in range(20)] + [200]  # one giant
    shapes = [(10, 10, 4)] * len(millimetres)
    dataset = write(tmp_path / "d", shapes, [(mm / 10, 1.0, 12.0 + mm) for mm in millimetres])
    plan = make_plan(dataset, dataset.cases, ENCODER, Wishes(plane="axial"))
    covered = np.mean(np.array(millimetres) <= plan.pixel_mm * plan.image_size + 0.01)
    assert 0.95 <= covered < 1
    assert plan.pixel_mm * plan.image_size == pytest.approx(59, abs=0.01)
    assert "59 mm" in plan.reasons["pixel_mm"]


@pytest.mark.parametrize("mm", [1e-5, 0.001, 0.0135, 1.0])
def test_the_slice_fills_the_image_however_small_its_pixels(tmp_path, mm):
    plan = plan_of(tmp_path / "d", (50, 40, 4), (mm, mm, 4 * mm))
    assert round(50 * mm / plan.pixel_mm) == plan.image_size


# --- reasons, overrides -----------------------------------------------------------------------------------------------


def test_every_decision_has_its_reason_and_what_is_given_is_taken(tmp_path):
    dataset = write(tmp_path / "d", [(20, 20, 6)], [(1, 1, 4)])
    decided = make_plan(dataset, dataset.cases, ENCODER)
    assert set(decided.reasons) == {"plane", "image_size", "pixel_mm", "neighbours", "intensity", "sampling", "crop"}
    assert all(decided.reasons.values())
    plan = make_plan(
        dataset,
        dataset.cases,
        ENCODER,
        Wishes("sagittal", 96, 0.7, False, window=(0, 9), sampling="by_label", crop="none"),
    )
    assert plan.sampling == "by_label"
    assert (plan.plane, plan.image_size, plan.pixel_mm, plan.neighbours) == ("sagittal", 96, 0.7, False)
    assert plan.intensity == (Window(low=0, high=9),)
    assert plan.reasons == {}


@pytest.mark.parametrize(
    ("window", "said"),
    [
        ((3.0, 3.0), "give the lower value first"),
        ((0.0, 1e12), r"expected values up to 1e\+09"),
        ((0.0, 1e-12), "1e-09 apart at least"),
        ((0.0, 1e9), "in which all values of the training scans, 0 to 2399, would be one grey"),
    ],
)
def test_a_window_in_which_no_scan_can_be_seen_is_refused(tmp_path, window, said):
    with pytest.raises(VptError, match=rf"^plan\.window: .*{said}"):
        plan_of(tmp_path / "d", (20, 20, 6), (1, 1, 4), window=window)


def test_a_plan_whose_window_was_made_too_wide_is_refused(tmp_path):
    plan = plan_of(tmp_path / "d", (20, 20, 6), (1, 1, 4), window=(0, 2000)).model_dump()
    with pytest.raises(ValueError, match="all values of the training would be one grey"):
        Plan.model_validate(plan | {"intensity": [{"kind": "window", "low": -1e9, "high": 1e9}]})


def test_only_the_training_cases_are_read(make_dataset):
    root = make_dataset(cases=4)
    dataset = read_dataset(root)
    train = dataset.cases[:2]
    before = make_plan(dataset, train, ENCODER)
    for case in dataset.cases[2:]:
        for path in (*case.images, case.label):
            path.unlink()
    assert make_plan(dataset, train, ENCODER) == before


# --- channels ---------------------------------------------------------------------------------------------------------


def test_one_channel_takes_its_neighbours_and_several_do_not(tmp_path):
    for count in (1, 2, 3, 4, 16):
        names = tuple(f"MR{k}" for k in range(count))
        plan = plan_of(tmp_path / str(count), (12, 12, 4), (1, 1, 3), channels=names)
        assert plan.channels == names
        assert plan.neighbours == (count == 1)
        assert plan.intensity == (Percentiles(),) * count
        assert plan.inputs == max(3, count)
        assert plan.reasons.get("channels", "") == (
            f"{count} channels are mixed to 3 by a trained 1x1 convolution" if count > 3 else ""
        )


def test_neighbours_of_several_channels_are_refused(tmp_path):
    for names in ("AB", "ABCD"):
        with pytest.raises(VptError, match=r"plan\.neighbours=false"):
            plan_of(tmp_path / names, (12, 12, 4), (1, 1, 3), channels=tuple(names), neighbours=True)


# --- intensities ------------------------------------------------------------------------------------------------------


def ramp(label: np.ndarray) -> np.ndarray:
    """Labelled voxels run evenly from 0 to 200 HU, the others are air."""
    image = np.full(label.shape, -1000, np.float32)
    image[label > 0] = np.linspace(0, 200, int(label.sum()))
    return image


@pytest.mark.parametrize("name", ["CT", "ct ", "CBCT"])
def test_ct_is_windowed_by_its_labelled_voxels(tmp_path, name):
    (window,) = plan_of(tmp_path / "d", (40, 40, 4), (1, 1, 3), channels=(name,), image=ramp).intensity
    assert isinstance(window, Window)
    assert (window.low, window.high) == pytest.approx((1 - 50, 199 + 50), abs=0.1)  # 0.5 % and 99.5 % of 0..200
    assert window(np.array([-1000.0, window.low, 100.0, window.high, 3000.0])) == pytest.approx([0, 0, 0.5, 1, 1])


@pytest.mark.slow
def test_ct_of_which_few_cases_are_labelled_still_gets_its_window(tmp_path):
    dataset = write(
        tmp_path / "d", [(8, 8, 2)] * 90, [(1, 1, 3)] * 90, channels=("CT",), image=lambda label: label + 40.0
    )
    for case in dataset.cases[:-1]:  # but for one they are empty
        nib.save(nib.Nifti1Image(np.zeros((8, 8, 2), np.uint8), np.diag([1, 1, 3, 1.0])), case.label)
    (window,) = make_plan(dataset, dataset.cases, ENCODER).intensity
    assert (window.low, window.high) == (41 - 50, 41 + 50)


def test_mr_is_scaled_by_each_scans_own_percentiles_and_so_is_the_mr_beside_a_ct(tmp_path):
    plan = plan_of(tmp_path / "mr", (12, 12, 4), (1, 1, 3), image=ramp)
    assert plan.intensity == (Percentiles(),)
    assert "CT" in plan.reasons["intensity"]
    both = plan_of(tmp_path / "both", (12, 12, 4), (1, 1, 3), channels=("CT", "MRI"), image=ramp)
    assert [scale.kind for scale in both.intensity] == ["window", "percentiles"]


def test_a_window_that_is_given_counts_for_ct_or_where_there_is_none_for_every_channel(tmp_path):
    plan = plan_of(tmp_path / "d", (12, 12, 4), (1, 1, 3), channels=("CT", "PET"), window=(-100, 240))
    assert plan.intensity == (Window(low=-100, high=240), Percentiles())
    plan = plan_of(tmp_path / "e", (12, 12, 4), (1, 1, 3), channels=("A", "B"), window=(-100, 240))
    assert plan.intensity == (Window(low=-100, high=240),) * 2
    with pytest.raises(VptError, match="240 to -100; give the lower value first"):
        plan_of(tmp_path / "swapped", (12, 12, 4), (1, 1, 3), window=(240, -100))


def test_ct_without_any_label_is_refused(tmp_path):
    dataset = write(tmp_path / "d", [(12, 12, 4)], [(1, 1, 3)], channels=("CT",))
    label = dataset.cases[0].label
    nib.save(nib.Nifti1Image(np.zeros((12, 12, 4), np.uint8), nib.load(label).affine), label)
    with pytest.raises(VptError, match="no labelled voxel"):
        make_plan(dataset, dataset.cases, ENCODER)


# --- real data --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.data
def test_hippocampus(data_root):
    dataset = read_dataset(data_root / "hippocampus3d")
    train = [dataset.case(name) for name in read_splits(dataset).train]
    plan = make_plan(dataset, train, ENCODER)
    assert (plan.plane, plan.neighbours, plan.image_size) == ("axial", True, 64)
    assert plan.intensity == (Percentiles(),)
    assert 0.5 < plan.pixel_mm < 1.2
    tops, contrast = [], []
    for case in train[::4]:
        image = reader_of(case.images).voxels(1).values()
        scaled = plan.intensity[0](image)
        assert (scaled.min(), scaled.max()) == (0, 1), case.name
        tops.append(float(image.max()))
        contrast.append(float(scaled.std()))
    assert max(tops) > 100 * min(tops)  # the scales differ ...
    assert max(contrast) < 3 * min(contrast)  # ... and no longer do


# --- images -----------------------------------------------------------------------------------------------------------


def images_of(root: Path, sizes, *, depth=np.uint8, colour=False) -> SegmentationSet:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number, size in enumerate(sizes):
        pixels = np.full((*size, 3), (200, 30, 30), np.uint8) if colour else np.full(size, 100, depth)
        Image.fromarray(pixels).save(root / f"images/c{number}.png")
        Image.fromarray(np.full(size, 255, np.uint8)).save(root / f"masks/c{number}.png")
    return read_dataset(root)


def test_images_have_no_millimetres_and_no_neighbours(tmp_path):
    dataset = images_of(tmp_path, [(60, 100), (90, 110), (120, 70)])
    plan = make_plan(dataset, dataset.cases, ENCODER)
    assert (plan.kind, plan.plane, plan.pixel_mm, plan.neighbours) == ("images", "axial", None, False)
    assert plan.intensity == (Window(low=0, high=255),)
    assert plan.image_size == 112  # the median longer side, 110, in whole patches
    assert "images have 110 pixels on the longer side" in plan.reasons["image_size"]
    assert str(plan) == "images, longer side 112 px"
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


@pytest.mark.parametrize(("side", "expected"), [(20, 64), (64, 64), (100, 104), (250, 256), (3000, 256)])
def test_the_size_of_images_is_from_the_encoders_own_to_twice_that_or_256(tmp_path, side, expected):
    dataset = images_of(tmp_path, [(10, side)])
    assert make_plan(dataset, dataset.cases, ENCODER).image_size == expected


def test_colour_has_three_scales_and_deep_images_their_own(tmp_path):
    colour, deep = (
        images_of(tmp_path / "a", [(9, 9)], colour=True),
        images_of(tmp_path / "b", [(9, 9)], depth=np.uint16),
    )
    assert make_plan(colour, colour.cases, ENCODER).intensity == (Window(low=0, high=255),) * 3
    assert make_plan(deep, deep.cases, ENCODER).intensity == (Percentiles(),)


def test_what_is_given_for_images_is_taken_or_refused(tmp_path):
    dataset = images_of(tmp_path, [(60, 100)])
    plan = make_plan(dataset, dataset.cases, ENCODER, Wishes(pixel_mm=2.0, window=(10, 90), image_size=32))
    assert (plan.pixel_mm, plan.image_size, plan.intensity) == (2.0, 32, (Window(low=10, high=90),))
    assert str(plan) == "images, every 2 px to one, tiles of 32 px"
    with pytest.raises(VptError, match=r"images have no coronal plane; leave plan\.plane out"):
        make_plan(dataset, dataset.cases, ENCODER, Wishes(plane="coronal"))
    with pytest.raises(VptError, match=r"images have no slices beside them; set plan\.neighbours=false"):
        make_plan(dataset, dataset.cases, ENCODER, Wishes(neighbours=True))


def test_padding_and_its_colour_are_the_encoders(tmp_path):
    dataset = images_of(tmp_path, [(60, 100)])
    plan = make_plan(dataset, dataset.cases, replace(ENCODER, padding="corner", fill=(0.4, 0.5, 0.6)))
    assert (plan.padding, plan.fill) == ("corner", (0.4, 0.5, 0.6))


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channel", "kind"), [("CT", "window"), ("MRI", "percentiles")])
def test_the_values_of_the_training_cases_are_kept(tmp_path: Path, channel: str, kind: str) -> None:
    dataset = write(tmp_path, [(8, 9, 4)] * 3, [(1, 1, 1)] * 3, channels=(channel,), image=lambda label: label * 100.0)

    plan = make_plan(dataset, dataset.cases[:2], ENCODER)

    assert plan.intensity[0].kind == kind
    assert plan.values is not None
    assert plan.values.cases == 2
    (found,) = plan.values.channels
    assert (found.low, found.high, found.distinct) == (0, 100, 2)


def test_values_are_of_cases_spread_over_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vpt.data import planning

    monkeypatch.setitem(planning.FINGERPRINTED, "volumes", 3)
    number = iter(range(7))
    dataset = write(tmp_path, [(4, 4, 4)] * 7, [(1, 1, 1)] * 7, image=lambda label: label * 0.0 + next(number))

    values = make_plan(dataset, dataset.cases, ENCODER).values

    assert values is not None
    assert (values.cases, values.channels[0].low, values.channels[0].high) == (3, 0, 6)
