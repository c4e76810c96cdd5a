"""Fetch AMOS (abdominal CT and MRI, 15 organs), or take it from disk, and lay out one of its modalities for `vpt`.

    python data_scripts/prepare_amos.py --modality ct --to data/amos-ct
    vpt check data/amos-ct
    vpt train data/amos-ct

CT and MRI are two data sets here, because they need intensities of their own. The scans that AMOS keeps for validation
are the test side (those of its own test have no labels and go to imagesTs/); of its training scans a few are drawn to
validate. A scan's number tells its modality: CT up to 500, MRI above.
"""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

from preparing import options, prepare
from volumes import in_pairs, lay_out, scans_in

from vpt.errors import VptError
from vpt.published.material import Archive, Material, Origin, write_split

ORIGIN = Origin(
    "AMOS22",
    "https://zenodo.org/records/7262581",
    "24 GB",
    "CC BY 4.0",
    "Ji et al., AMOS: A Large-Scale Abdominal Multi-Organ Benchmark for Versatile Medical Image Segmentation, "
    "NeurIPS Datasets and Benchmarks (2022)",
    (
        Archive(
            "amos22.zip",
            "https://zenodo.org/records/7262581/files/amos22.zip?download=1",
            md5="67717b2a483ac0744c89c3016b7aaef7",
        ),
    ),
)
ORGANS = (
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "postcava",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
    "duodenum",
    "bladder",
    "prostate/uterus",
)
LAST_CT = 500
VALIDATE = 10  # of how many training scans one validates


def build(modality: str, seed: int, material: Material, new: Path) -> None:
    folder = material.folder("imagesVa").parent
    tasks = {side: pairs_of(folder, modality, side) for side in ("Tr", "Va")}
    tests = of_modality(folder / "imagesTs", modality) if (folder / "imagesTs").is_dir() else {}
    organs = {"background": 0, **{organ: id for id, organ in enumerate(ORGANS, start=1)}}
    described = ORIGIN.description(organs) | {"name": f"AMOS22 {modality.upper()}"}
    lay_out(new, tasks["Tr"] | tasks["Va"], tests, described, "CT" if modality == "ct" else "MRI")
    names = sorted(tasks["Tr"])
    random.Random(seed).shuffle(names)
    validate = len(names) // VALIDATE or 1
    write_split(new, {"train": names[validate:], "val": names[:validate], "test": sorted(tasks["Va"])})


def pairs_of(folder: Path, modality: str, side: str) -> dict[str, tuple[Path, Path]]:
    images, labels = folder / f"images{side}", folder / f"labels{side}"
    if missing := [each for each in (images, labels) if not each.is_dir()]:
        raise VptError(f"{missing[0]}: no such folder; {ORIGIN.by_hand}")
    return in_pairs(of_modality(images, modality), of_modality(labels, modality), folder)


def of_modality(folder: Path, modality: str) -> dict[str, Path]:
    """amos_0001 -> its file, of one modality."""
    found = {}
    for name, path in scans_in(folder).items():
        number = name.removeprefix("amos_")
        if not number.isdecimal():
            raise VptError(f"{path}: no scan of AMOS by its name; expected amos_0001.nii.gz")
        if (int(number) <= LAST_CT) == (modality == "ct"):
            found[name] = path
    return found


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--modality", choices=("ct", "mri"), default="ct")
    parser.add_argument("--seed", type=int, default=0, help="of the training scans that validate")
    args = parser.parse_args()
    prepare(ORIGIN, args, partial(build, args.modality, args.seed))


if __name__ == "__main__":
    main()
