"""Tiny real files of every kind that vpt reads, and what a user's command does with each."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

if str(Path(__file__).parents[1]) not in sys.path:  # as a script
    sys.path.insert(0, str(Path(__file__).parents[1]))

Answer = Any
"""What an entry point made of a file, to be compared: arrays, tuples, texts."""


@dataclass(frozen=True)
class Sample:
    """A file of a kind, in a folder of its own; use: what a command does with the folder's copy of it.

    sealed: whether its format has a checksum over all that is answered, so that no damage may be believed.
    """

    kind: str
    file: Path
    use: Callable[[Path], Answer]
    sealed: bool = False


def make_samples(root: Path) -> list[Sample]:
    """Every sample, each in a folder of its own below `root`."""
    makers = (artifact, config, overrides, described_set, split, listed, nifti, npz, itk, pictures, tables, dicom)
    return [sample for maker in makers for sample in maker(root)]


# --- uses -------------------------------------------------------------------------------------------------------------


def scan(path: Path) -> Answer:
    """As `vpt check` and `vpt predict` read a scan: grid, doubts, voxels as slices, a mask like it."""
    from vpt.readers import reader_of

    reader = reader_of(path)
    grid = reader.grid()
    channels = reader.count_channels()
    reader.doubts()
    voxels = reader.voxels(max(1, min(channels, 16)))
    slices = [part.copy() for part in voxels.oriented("SPL").slices(0)] if reader.kind == "volumes" else []
    reader.mask(np.zeros(grid.shape, np.uint8))
    return grid.shape, grid.affine, voxels.values(), slices


def mask(path: Path) -> Answer:
    """As `vpt check` reads a label map."""
    from vpt.readers import reader_of

    found = reader_of(path).labels()
    return found.ids, found.array


def picture_mask(path: Path) -> Answer:
    from vpt.readers.colours import colours_of, palette_of

    palette_of(path), colours_of(path)
    return mask(path)


def check(path: Path) -> Answer:
    """`vpt check` of a data set for segmentation."""
    from vpt.data.check import check_dataset

    report = check_dataset(path.parent)
    return [problem.text for problem in report.problems]


def check_classes(path: Path) -> Answer:
    """`vpt check` of a data set for classification."""
    from vpt.data.check_labelled import check_labelled

    report = check_labelled(path)
    return [problem.text for problem in report.problems]


def use_artifact(path: Path) -> Answer:
    """`vpt info` and the start of `vpt predict`."""
    from vpt.artifact import read_artifact
    from vpt.describe import describe
    from vpt.restoring import restore_model

    describe(str(path))
    found = read_artifact(path)
    restore_model(found)
    return found.config.model_dump_json(), found.plan.model_dump_json(), sorted(found.labels.items()), found.tensors


def use_run(path: Path) -> Answer:
    """What of a run `vpt train --resume`, `vpt evaluate` and `vpt info` read besides its artifact."""
    from vpt.config.files import load_written
    from vpt.data.plan import read_plan
    from vpt.data.splits import read_written
    from vpt.describe import split_facts

    run = path.parent
    return (
        load_written(run / "config.yaml"),
        read_plan(run / "plan.json"),
        read_written(run / "splits.json"),
        split_facts(run),
    )


def use_config(path: Path) -> Answer:
    from vpt.config import load_config
    from vpt.config.files import dump_config

    return dump_config(load_config(path))


def use_overrides(path: Path) -> Answer:
    """Each line as a --set of `vpt train`."""
    from vpt.config.files import dump_config, load_config, parse_override

    lines = path.read_bytes().decode("utf-8", "replace").split("\n")
    return dump_config(load_config({"data": {"path": str(path.parent)}}, dict(map(parse_override, lines))))


# --- files ------------------------------------------------------------------------------------------------------------


def folder(root: Path, name: str) -> Path:
    made = root / name
    made.mkdir(parents=True)
    return made


def artifact(root: Path) -> list[Sample]:
    from vpt.artifact import save_artifact
    from vpt.building import build_model
    from vpt.config import load_config
    from vpt.config.files import dump_config
    from vpt.data.plan import Percentiles, Plan

    file = folder(root, "artifact") / "best.safetensors"
    values = {"data": {"path": "x"}, "prompts": {"method": "deep", "count": 2}}
    config = load_config(values).resolved("segmentation")
    plan = Plan(
        plane="axial", pixel_mm=1.0, image_size=64, neighbours=True, channels=("MRI",), intensity=(Percentiles(),)
    )
    labels, scores = {0: "background", 1: "rim"}, {"validation": {"dice": 0.5}}
    save_artifact(file, build_model(config, plan, 2), config=config, plan=plan, labels=labels, scores=scores)
    run = folder(root, "run")
    (run / "best.safetensors").write_bytes(file.read_bytes())
    (run / "config.yaml").write_text(dump_config(config))
    (run / "plan.json").write_text(plan.model_dump_json())
    (run / "splits.json").write_text(json.dumps({"train": ["a", "b"], "val": ["c"], "test": []}))
    files = [Sample("run", run / name, use_run) for name in ("config.yaml", "plan.json", "splits.json")]
    return [Sample("artifact", file, use_artifact, sealed=True), *files]


def config(root: Path) -> list[Sample]:
    from vpt.config import load_config
    from vpt.config.files import dump_config

    file = folder(root, "config") / "config.yaml"
    file.write_text(dump_config(load_config({"data": {"path": "data", "labels": {"a": [1, 2]}}, "prompts": "deep"})))
    return [Sample("yaml", file, use_config)]


def overrides(root: Path) -> list[Sample]:
    file = folder(root, "overrides") / "set.txt"
    file.write_text("optim.lr=1e-3\ntrain.epochs=5\nprompts={method: deep, count: 4}\ndata.labels={a: [1, 2]}")
    return [Sample("--set", file, use_overrides)]


def _volumes(root: Path) -> Path:
    """Four nnU-Net cases."""
    import nibabel as nib

    rng = np.random.default_rng(0)
    for number in range(4):
        label = np.zeros((8, 7, 4), np.uint8)
        label[2:5, 2:5, 1:3] = 1
        image = (rng.normal(100, 20, label.shape) + 50 * label).astype(np.float32)
        for name, array in ((f"imagesTr/c{number}_0000", image), (f"labelsTr/c{number}", label)):
            (root / name).parent.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1.0, 2.0, 1.0])), root / f"{name}.nii.gz")
    return root


def described_set(root: Path) -> list[Sample]:
    file = _volumes(folder(root, "described")) / "dataset.json"
    content = {
        "name": "tiny",
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "rim": 1},
        "file_ending": ".nii.gz",
        "patients": {"c0": "a", "c1": "b"},
        "codes": {"rim": ["1", "SCT", "Rim"]},
    }
    file.write_text(json.dumps(content))
    listed = _volumes(folder(root, "decathlon")) / "dataset.json"
    pairs = [
        {"image": f"imagesTr/c{k}_0000.nii.gz", "label": f"labelsTr/c{k}.nii.gz", "case": f"c{k}"} for k in range(4)
    ]
    labels = {"0": "background", "1": "rim"}
    listed.write_text(json.dumps({"modality": {"0": "MRI"}, "labels": labels, "training": pairs}))
    return [Sample("dataset.json", file, check), Sample("dataset.json", listed, check)]


def split(root: Path) -> list[Sample]:
    found = []
    description = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "rim": 1}, "file_ending": ".nii.gz"}
    fold = {"train": ["c0", "c1"], "val": ["c2", "c3"]}
    for name, content in (("split.json", {**fold, "test": []}), ("splits_final.json", [fold, fold])):
        made = _volumes(folder(root, name.replace(".", "_")))
        (made / "dataset.json").write_text(json.dumps(description))
        (made / name).write_text(json.dumps(content))
        found.append(Sample("split.json", made / name, check))
    return found


def listed(root: Path) -> list[Sample]:
    lines = [(f"imagesTr/c{k}_0000.nii.gz", f"labelsTr/c{k}.nii.gz", f"c{k}", f"p{k}") for k in range(4)]
    csv, rows = _volumes(folder(root, "listed")) / "cases.csv", _volumes(folder(root, "rows")) / "cases.jsonl"
    csv.write_text("\n".join(",".join(line) for line in [("image", "mask", "case", "patient"), *lines]))
    rows.write_text("\n".join(json.dumps({"image": i, "mask": m, "case": c, "patient": p}) for i, m, c, p in lines))

    def use(path: Path) -> Answer:
        from vpt.data.check import check_dataset

        return [problem.text for problem in check_dataset(path).problems]

    return [Sample("csv of masks", csv, use), Sample("jsonl", rows, use)]


def nifti(root: Path) -> list[Sample]:
    import nibabel as nib

    made, rng = folder(root, "nifti"), np.random.default_rng(0)
    affine, array = np.diag([-1.0, -1.5, 2.0, 1.0]), rng.normal(100, 20, (9, 8, 5)).astype(np.float32)
    scaled = nib.Nifti1Image((array * 10).astype(np.int16), affine)
    scaled.header.set_slope_inter(0.1, 3)
    label = nib.Nifti1Image((array > 100).astype(np.uint8), affine)
    nib.save(nib.Nifti1Image(array, affine), made / "a.nii.gz")
    nib.save(scaled, made / "b.nii")
    nib.save(label, made / "c.nii.gz")
    nib.save(nib.Nifti2Image(array, affine), made / "d.nii.gz")
    return [
        Sample("nifti", made / "a.nii.gz", scan, sealed=True),
        Sample("nifti", made / "b.nii", scan),
        Sample("nifti", made / "c.nii.gz", mask, sealed=True),
        Sample("nifti", made / "d.nii.gz", scan, sealed=True),
    ]


def npz(root: Path) -> list[Sample]:
    made, rng = folder(root, "npz"), np.random.default_rng(0)
    scans, labels = rng.integers(0, 255, (4, 9, 8), np.uint8), rng.integers(0, 2, (4, 9, 8), np.uint8)
    np.savez_compressed(made / "case.npz", imgs=scans, gts=labels, spacing=np.array([1.0, 1.0, 2.0]))
    np.savez(made / "plain.npz", imgs=scans, gts=labels)
    sides = {
        f"{side}_{what}": array
        for side in ("train", "val", "test")
        for what, array in (
            ("images", rng.integers(0, 255, (6, 9, 9), np.uint8)),
            ("labels", np.arange(6)[:, None] % 3),
        )
    }
    np.savez_compressed(folder(root, "medmnist") / "tiny.npz", **sides)
    return [
        Sample("npz", made / "case.npz", lambda path: (scan(path), mask(path)), sealed=True),
        Sample("npz", made / "plain.npz", lambda path: (scan(path), mask(path)), sealed=True),
        Sample("npz", root / "medmnist" / "tiny.npz", check_classes),
    ]


def itk(root: Path) -> list[Sample]:
    import SimpleITK

    made, array = folder(root, "itk"), np.random.default_rng(0).integers(0, 900, (5, 8, 9), np.int16)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((1.0, 1.5, 2.0))
    for name, packed in (("a.nrrd", True), ("b.nrrd", False), ("c.mha", True), ("d.mha", False)):
        SimpleITK.WriteImage(image, str(made / name), useCompression=packed)
    return [Sample("nrrd, mha", made / name, scan) for name in ("a.nrrd", "b.nrrd", "c.mha", "d.mha")]


def pictures(root: Path) -> list[Sample]:
    from PIL import Image

    made, rng = folder(root, "pictures"), np.random.default_rng(0)
    grey = Image.fromarray(rng.integers(0, 255, (20, 24), np.uint8))
    colour = Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8))
    grey.save(made / "grey.png")
    for ending in ("png", "jpg", "tiff", "bmp", "webp", "ppm", "jp2", "tga"):
        colour.save(made / f"colour.{ending}")
    Image.fromarray(rng.integers(0, 2**16, (20, 24), np.uint16)).save(made / "deep.pgm")
    Image.fromarray(rng.integers(0, 2**16, (20, 24), np.uint16)).save(made / "deep.j2k")
    (made / "text.pgm").write_text(f"P2 # of a scanner\n24 20\n3\n{' '.join(map(str, rng.integers(0, 4, 480)))}\n")
    colour.quantize(4).save(made / "palette.png")
    colour.quantize(4).save(made / "palette.gif")
    grey.save(made / "packed.tif", compression="tiff_lzw")
    scans = (
        *(f"colour.{ending}" for ending in ("png", "jpg", "tiff", "bmp", "webp", "ppm", "jp2", "tga")),
        *("palette.gif", "packed.tif", "deep.pgm", "deep.j2k"),
    )
    return [
        *(Sample("picture", made / name, scan, sealed=name.endswith("png")) for name in scans),
        Sample("picture", made / "text.pgm", picture_mask),
        Sample("picture", made / "grey.png", picture_mask, sealed=True),
        Sample("picture", made / "palette.png", picture_mask, sealed=True),
    ]


def tables(root: Path) -> list[Sample]:
    from PIL import Image

    made, rng = folder(root, "tables"), np.random.default_rng(0)
    lines = ["path,label,split,patient"]
    for number in range(8):
        Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).save(made / f"i{number}.png")
        lines.append(f"i{number}.png,{'ab'[number % 2]},{'train' if number < 5 else 'val'},p{number}")
    (made / "labels.csv").write_text("\n".join(lines))
    return [Sample("csv of classes", made / "labels.csv", check_classes)]


def dicom(root: Path) -> list[Sample]:
    from dicom_series import write_multiframe, write_series

    series, frames = write_series(folder(root, "series")), folder(root, "frames") / "a.dcm"
    write_multiframe(frames)
    return [
        Sample("dicom", sorted(series.iterdir())[2], lambda path: scan(path.parent)),
        Sample("dicom", frames, scan),
    ]
