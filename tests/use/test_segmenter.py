"""New scans: the mask lies on the scan's own grid, in the right voxels, or one sentence says why there is none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from masks import LABELS, bright_disc, broken, image_plan, same_place, scan, scan_plan, threshold, tiny, voxels
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image
from safetensors.torch import load_file, save_file

from vpt.artifact import read_artifact, save_artifact
from vpt.backbones import attention
from vpt.data.plan import Percentiles
from vpt.errors import VptError
from vpt.machine import gelu
from vpt.machine.device import choose_device
from vpt.machine.precision import choose_precision
from vpt.readers import reader_of
from vpt.use.archives import save_labels
from vpt.use.load import load
from vpt.use.segmenter import Segmenter


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run's folder with an artifact."""
    folder = tmp_path_factory.mktemp("run")
    model, config = tiny(scan_plan())
    save_artifact(folder / "best.safetensors", model, config=config, plan=scan_plan(), labels=LABELS, scores={})
    return folder


@pytest.fixture(scope="module")
def segmenter(run) -> Segmenter:
    return load(run, device="cpu")


# --- what a scan may be -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_path_string_list_and_image_give_the_same_mask(segmenter, tmp_path):
    image, path = scan(), tmp_path / "a.nii.gz"
    nib.save(image, path)
    masks = [segmenter.segment(given) for given in (path, str(path), image, nib.load(path))]
    masks += [mask for listed in ([path], (path,), [[path], (image,)]) for mask in segmenter.segment(listed)]
    assert len(masks) == 8
    assert len(np.unique(voxels(masks[0]))) > 1  # not one class everywhere, which would prove little
    for mask in masks:
        assert np.array_equal(voxels(mask), voxels(masks[0]))
    same_place(masks[0], nib.load(path))
    same_place(masks[2], image)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_channels_as_files_and_as_one_file_give_the_same_mask(tmp_path, count):
    names = tuple("ABC"[:count])
    plan = scan_plan(neighbours=False, channels=names, intensity=(Percentiles(),) * count)
    segmenter = Segmenter.from_model(tiny(plan)[0], plan, LABELS, torch.device("cpu"))
    images = [scan(seed=number) for number in range(count)]
    paths = [tmp_path / f"a_{number:04d}.nii.gz" for number in range(count)]
    for image, path in zip(images, paths, strict=True):
        nib.save(image, path)
    stacked = nib.Nifti1Image(np.stack([voxels(image) for image in images], -1), images[0].affine)
    split, joined = segmenter.segment(paths), segmenter.segment(stacked)
    assert np.array_equal(voxels(split), voxels(joined))
    assert split.shape == joined.shape == (20, 18, 6)
    assert not np.array_equal(voxels(split), voxels(segmenter.segment(paths[::-1])))
    with pytest.raises(VptError, match=f"expected {count} channels"):
        segmenter.segment(paths[0])


def test_a_channel_that_its_file_calls_another_is_refused_and_the_order_is_told(tmp_path: Path) -> None:
    plan = scan_plan(neighbours=False, channels=("flair", "t1", "t1ce"), intensity=(Percentiles(),) * 3)
    segmenter = Segmenter.from_model(tiny(plan)[0], plan, LABELS, torch.device("cpu"))
    paths = [tmp_path / f"t1_study_p2_{name}.nii.gz" for name in plan.channels]
    for path in paths:
        nib.save(scan(seed=3), path)

    assert segmenter.segment(paths).shape == (20, 18, 6)
    with pytest.raises(VptError, match=r"p2_t1ce\.nii\.gz: given as the channel flair, .* says t1ce; .* flair, t1"):
        segmenter.segment([paths[2], paths[1], paths[0]])
    with pytest.raises(VptError, match=r"1 channel, expected 3 channels .* CASE_0001 t1, CASE_0002 t1ce"):
        segmenter.segment(paths[0])
    renamed = [path.rename(tmp_path / f"p2_{number:04d}.nii.gz") for number, path in enumerate(paths)]
    assert segmenter.segment(renamed).shape == (20, 18, 6)


@pytest.mark.slow
def test_order_of_scans_and_threads_change_nothing(segmenter):
    scans = [scan(seed=seed) for seed in range(4)]
    alone = [voxels(segmenter.segment(image)) for image in scans]
    backwards = [voxels(segmenter.segment(image)) for image in reversed(scans)][::-1]
    with ThreadPoolExecutor(2) as pool:
        together = [voxels(mask) for mask in pool.map(segmenter.segment, scans)]
    for found in (backwards, together):
        assert all(np.array_equal(a, b) for a, b in zip(alone, found, strict=True))


# --- where the mask lies ----------------------------------------------------------------------------------------------


def turned(degrees=(0.0, 0.0, 0.0), spacing=(1.0, 1.2, 3.0)) -> np.ndarray:
    turn = nib.eulerangles.euler2mat(*np.radians(degrees))
    return nib.affines.from_matvec(turn @ np.diag(spacing), [5, -7, 11])


@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (2, 1), (1, 4), (0, 0)])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_header_codes_units_and_affine_are_the_scans(segmenter, tmp_path, codes, kind):
    image = kind(voxels(scan()), turned((10, 5, 18)))
    image.set_qform(turned((10, 5, 18)), codes[0])
    image.set_sform(turned((10, 5, 18)), codes[1])
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"made by a scanner"
    image.header["cal_max"] = 900
    nib.save(image, tmp_path / "a.nii.gz")
    image = nib.load(tmp_path / "a.nii.gz")
    save_labels(tmp_path / "mask.nii.gz", segmenter.segment(tmp_path / "a.nii.gz"))
    mask = nib.load(tmp_path / "mask.nii.gz")
    same_place(mask, image)
    assert type(mask) is kind
    assert mask.header["cal_max"] == 0  # of the scan's brightness, not of labels
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii.gz", "mask.nii.gz"]


def test_scaling_of_the_scan_is_not_put_on_the_labels(segmenter, tmp_path):
    image = scan()
    image.header.set_slope_inter(0.37, -1000)
    nib.save(image, tmp_path / "a.nii")
    save_labels(tmp_path / "mask.nii", segmenter.segment(tmp_path / "a.nii"))
    same_place(nib.load(tmp_path / "mask.nii"), nib.load(tmp_path / "a.nii"))


@pytest.mark.parametrize(("most", "dtype"), [(2, np.uint8), (117, np.uint8), (300, np.uint16)])
def test_ids_are_sparse_and_stored_in_the_smallest_type_that_holds_them(most, dtype):
    labels = {0: "background", 1: "a", most: "b"}
    rule = threshold(scan_plan(), labels)
    array = np.zeros((12, 12, 5), np.float32)
    array[3:9, 3:9, 1:4] = np.linspace(800, 1000, 108).reshape(6, 6, 3)
    array[array == 0] = 1
    mask = rule.segment(nib.Nifti1Image(array, np.eye(4)))
    assert mask.get_data_dtype() == dtype
    assert np.unique(voxels(mask)).tolist() == [0, most]


def ellipsoid(affine, shape) -> np.ndarray:
    """Around the volume's middle, half axes of 13, 9, 16 mm along R, A, S, and a bump that breaks the symmetry."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    middle = affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3]
    body = (((world - middle) / [13, 9, 16]) ** 2).sum(-1) <= 1
    bump = (((world - middle - [9, 8, 6]) / [7, 6, 8]) ** 2).sum(-1) <= 1
    return body | bump


@pytest.mark.slow
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("stored", ["RAS", "LPS", "LAS", "PSR", "SLA", "IAR"])
@pytest.mark.parametrize(
    ("degrees", "spacing"),
    [((0, 0, 0), (1.0, 1.0, 1.0)), ((18, 0, 0), (0.8, 1.1, 2.0)), ((7, 12, 20), (1.5, 0.7, 1.0))],
    ids=["straight", "oblique", "twisted"],
)
def test_a_bright_ellipsoid_comes_back_in_its_voxels(plane, stored, degrees, spacing):
    shape = tuple(int(46 / mm) + 1 for mm in spacing)
    affine = turned(degrees, spacing)
    truth = ellipsoid(affine, shape)
    image = nib.Nifti1Image(np.where(truth, 900, 100).astype(np.int16), affine)
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(stored))
    image, truth = image.as_reoriented(turn), nib.Nifti1Image(truth.astype(np.uint8), affine).as_reoriented(turn)
    mask = threshold(scan_plan(plane=plane, pixel_mm=0.75)).segment(image)
    same_place(mask, image)
    found, truth = voxels(mask) == 117, voxels(truth) > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.95


ODD = [
    "mr_multiorgan/example_mr_sm.nii.gz",  # LPS
    "spine/t2.nii.gz",  # PSR
    "spine/t2s.nii.gz",  # LAS, 9 slices
    "spine/mt0.nii.gz",  # 40x40x5 at 17 mm
    "spine/t1w.nii.gz",  # RAS
    "oblique/fmri_pitch.nii.gz",  # 6 degrees
]


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", ODD)
def test_masks_of_odd_real_scans_lie_on_their_grids(data_root, tmp_path, name):
    plan = scan_plan(pixel_mm=5.0)
    segmenter = Segmenter.from_model(tiny(plan)[0], plan, LABELS, torch.device("cpu"))
    path = data_root / "odd_volumes" / name
    save_labels(tmp_path / "mask.nii.gz", segmenter.segment(path))
    same_place(nib.load(tmp_path / "mask.nii.gz"), nib.load(path))
    assert reader_of(tmp_path / "mask.nii.gz").grid().matches(reader_of(path).grid(), 1e-6)


@pytest.mark.slow
@pytest.mark.data
def test_mask_of_an_oblique_scan_with_a_qform_only(data_root):
    path = data_root / "odd_volumes/prostate_oblique/Prostatex_0000.nii.gz"
    image = nib.load(path)
    mask = threshold(scan_plan(pixel_mm=1.0)).segment(path)
    same_place(mask, image)
    assert (mask.header["qform_code"], mask.header["sform_code"]) == (1, 0)
    array = voxels(image)
    low, high = np.percentile(array[array != 0], (0.5, 99.5))
    bright, found = array > (low + high) / 2, voxels(mask) == 117
    assert 2 * (bright & found).sum() / (bright.sum() + found.sum()) > 0.8  # at half its resolution


@pytest.mark.parametrize("shape", [(20, 18), (20, 18, 1), (20, 18, 1, 1)])
def test_a_single_slice_is_a_scan(segmenter, tmp_path, shape):
    image = nib.Nifti1Image(voxels(scan())[:, :, 0].reshape(shape), np.diag([1, 1, 5, 1]))
    nib.save(image, tmp_path / "a.nii.gz")
    mask = segmenter.segment(tmp_path / "a.nii.gz")
    assert mask.shape == (20, 18, 1)
    assert np.array_equal(mask.affine, nib.load(tmp_path / "a.nii.gz").affine)


# --- refused scans ----------------------------------------------------------------------------------------------------


BROKEN = {
    "nan": "not finite",
    "4-D": "is 4-D",
    "missing": "no such file",
    "truncated": "truncated or damaged",
    "text": "not a NIfTI",
    "empty": "an empty file",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_scans_that_cannot_be_used_are_refused_in_a_sentence(segmenter, tmp_path, kind):
    path = broken(tmp_path, kind)
    with pytest.raises(VptError, match=BROKEN[kind]) as caught:
        segmenter.segment(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- loading ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_and_its_artifact_load_alike(run, segmenter):
    again = load(run / "best.safetensors", device="cpu")
    assert (again.plan, again.labels) == (scan_plan(), LABELS)
    assert np.array_equal(voxels(again.segment(scan())), voxels(segmenter.segment(scan())))
    assert not again.model.training


@pytest.mark.slow
def test_precision_is_that_of_the_training_unless_told(run):
    """In float32 and in bfloat16 nearly all voxels agree; single ones may not."""
    found = {}
    for precision, stored in (("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)):
        segmenter = load(run, device="cpu", precision=precision)
        assert segmenter.model.backbone.vit.blocks[0].mlp.fc1.weight.dtype == stored
        assert {p.dtype for p in segmenter.model.trained().values()} == {torch.float32}
        found[precision] = voxels(segmenter.segment(scan()))
    assert len(np.unique(found["32-true"])) > 1
    assert (found["32-true"] == found["bf16-mixed"]).mean() > 0.97

    told = choose_precision(read_artifact(run).config.precision, torch.device("cpu"))
    assert np.array_equal(voxels(load(run, device="cpu").segment(scan())), found[told])


@pytest.mark.slow
def test_compiled_on_demand_and_only_then(run, segmenter, monkeypatch):
    """By torch's compiler without its code generator, which takes a minute; tests/test_fast_paths.py has that."""
    compiled, real = [], torch.compile

    def without_code(function):
        compiled.append(function)
        return real(function, backend="eager")

    monkeypatch.setattr(torch, "compile", without_code)
    # never compiled, and so rounded otherwise: attention in pieces, a GELU that is part of a product
    monkeypatch.setattr(attention, "pieces_are_faster", lambda *_: False)
    monkeypatch.setattr(gelu, "_has_operators", lambda: False)
    assert np.array_equal(voxels(load(run, device="cpu").segment(scan())), voxels(segmenter.segment(scan())))
    assert not compiled
    found = voxels(load(run, device="cpu", compile=True).segment(scan()))
    assert len(compiled) == 1
    assert np.array_equal(found, voxels(segmenter.segment(scan())))


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "tpu:0"])
def test_a_device_that_is_not_there_is_named(name):
    with pytest.raises(VptError, match=f"device {name}: not available here .*; choose auto or cpu"):
        choose_device(name)


def test_devices_that_are_there():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.slow
def test_other_backbone_weights_are_refused_and_the_right_ones_named(tmp_path):
    model, _ = tiny(scan_plan())
    state = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    prefix = next(name for name in state if name.endswith("cls_token"))[: -len("cls_token")]
    right, wrong = tmp_path / "right.safetensors", tmp_path / "wrong.safetensors"
    state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    save_file(state, right)
    state["cls_token"] = state["cls_token"] + 1e-6  # the smallest difference is another encoder
    save_file(state, wrong)
    trained, config = tiny(scan_plan(), weights=str(right))
    artifact = tmp_path / "best.safetensors"
    save_artifact(artifact, trained, config=config, plan=scan_plan(), labels=LABELS, scores={})
    moved = right.rename(tmp_path / "moved.safetensors")
    assert load(artifact, "cpu", weights=moved).labels == LABELS
    with pytest.raises(VptError) as caught:
        load(artifact, "cpu", weights=wrong)
    said = str(caught.value)
    assert trained.backbone.sha256[:16] in said
    assert str(wrong) in said
    assert "--weights" in said
    with pytest.raises(VptError, match=r"right\.safetensors: no such file"):
        load(artifact, "cpu")


def test_the_artifact_does_not_hold_the_backbone(run):
    names = set(load_file(run / "best.safetensors"))
    assert names
    assert all(name.startswith(("prompts.", "head.")) for name in names)


def test_what_is_no_run_is_refused(run, tmp_path):
    with pytest.raises(VptError, match=r"holds no best\.safetensors"):
        load(tmp_path)
    with pytest.raises(VptError, match="no such file or folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("Dear diary, today I trained a model.")
    with pytest.raises(VptError, match="not a readable safetensors file"):
        load(tmp_path / "notes.txt")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(VptError, match=r"tensors of something else .* expected vpt-artifact/1.*; give a run"):
        load(tmp_path / "other.safetensors")
    whole = (run / "best.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VptError, match="not a readable safetensors file"):
        load(tmp_path / "cut.safetensors")


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("padding", ["centre", "corner"])
@pytest.mark.parametrize("size", [(90, 60), (40, 100), (20, 31), (300, 64)])
def test_an_images_mask_has_its_pixels(tmp_path, colour, padding, size):
    pixels, truth = bright_disc(*size, colour=colour)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    segmenter = threshold(
        image_plan(colour, padding=padding, fill=(0.9, 0.4, 0.4) if padding == "corner" else (0, 0, 0))
    )
    mask = segmenter.segment(tmp_path / "a.png")
    assert (mask.shape, mask.dtype) == (size, np.uint8)
    assert set(np.unique(mask)) == {0, 117}
    found = mask == 117
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9
    for given in (str(tmp_path / "a.png"), pixels):
        assert np.array_equal(segmenter.segment(given), mask)


def test_a_plan_in_pixels_tiles_large_images():
    pixels, truth = bright_disc(150, 210)
    mask = threshold(image_plan(pixel_mm=1.0)).segment(pixels)
    assert np.array_equal(mask == 117, truth)


@pytest.mark.slow
def test_images_and_scans_need_the_model_for_them(tmp_path):
    flat, solid = threshold(image_plan()), threshold(scan_plan())
    Image.fromarray(bright_disc()[0]).save(tmp_path / "a.jpg")
    with pytest.raises(VptError, match=r"a\.jpg: an image, but the model was trained on NIfTI volumes"):
        solid.segment(tmp_path / "a.jpg")
    with pytest.raises(VptError, match=r"a\.jpg: an image, but the model was trained on NIfTI volumes"):
        solid.segment((tmp_path / "a.jpg",))
    with pytest.raises(VptError, match=r"b\.jpg: no such file or folder"):
        solid.segment(tmp_path / "b.jpg")
    with pytest.raises(VptError, match=r"an array of shape .* says no spacing"):
        solid.segment(bright_disc()[0])
    with pytest.raises(VptError, match="a volume, but the model was trained on images"):
        flat.segment(scan())
    with pytest.raises(VptError, match="the array given: a colour image, expected grey"):
        flat.segment(bright_disc(colour=True)[0])
    assert np.array_equal(threshold(image_plan(True)).segment(bright_disc()[0]), flat.segment(bright_disc()[0]))
