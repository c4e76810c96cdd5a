"""Fetch ISIC 2018, task 1 (lesions in dermoscopy), or take it from disk, and make a folder that `vpt` reads.

    python data_scripts/prepare_isic.py --to data/isic2018
    vpt check data/isic2018
    vpt train data/isic2018

The split is that of the challenge: 2594 images to train, 100 to validate and 1000 to test. Patients are not published.
"""

from __future__ import annotations

from pathlib import Path

from preparing import options, prepare

from vpt.data.cases import case_name, scan_files
from vpt.errors import VptError
from vpt.files import write_json
from vpt.published.material import Archive, Material, Origin, place, write_split

HOST = "https://isic-challenge-data.s3.amazonaws.com/2018"
SIDES = {"train": "Training", "val": "Validation", "test": "Test"}
HASHES = {  # folder -> SHA-256 of its archive
    "ISIC2018_Task1-2_Training_Input": "80f98572347a2d7a376227fa9eb2e4f7459d317cb619865b8b9910c81446675f",
    "ISIC2018_Task1_Training_GroundTruth": "99f8b2bb3c4d6af483362010715f7e7d5d122d9f6c02cac0e0d15bef77c7604c",
    "ISIC2018_Task1-2_Validation_Input": "0ea920fcfe512d12a6e620b50b50233c059f67b10146e1479c82be58ff15a797",
    "ISIC2018_Task1_Validation_GroundTruth": "f6911e9c0a64e6d687dd3ca466ca927dd5e82145cb2163b7a1e5b37d7a716285",
    "ISIC2018_Task1-2_Test_Input": "e59ae1f69f4ed16f09db2cb1d76c2a828487b63d28f6ab85997f5616869b127d",
    "ISIC2018_Task1_Test_GroundTruth": "2e8f6edce454a5bdee52485e39f92bd6eddf357e81f39018d05512175238ef82",
}
ORIGIN = Origin(
    "ISIC 2018 task 1",
    "https://challenge.isic-archive.com/data/#2018",
    "13 GB",
    "CC BY-NC 4.0",
    "Codella et al., Skin Lesion Analysis Toward Melanoma Detection 2018, arXiv:1902.03368; "
    "Tschandl et al., The HAM10000 dataset, Scientific Data 5, 180161 (2018)",
    tuple(Archive(f"{name}.zip", f"{HOST}/{name}.zip", sha256=sha256) for name, sha256 in HASHES.items()),
)
LESION = 255


def build(material: Material, new: Path) -> None:
    split = {}
    for side, word in SIDES.items():
        images = pictures(material.folder(f"ISIC2018_Task1-2_{word}_Input"), "")
        masks = pictures(material.folder(f"ISIC2018_Task1_{word}_GroundTruth"), "_segmentation")
        if alone := sorted(images.keys() ^ masks.keys()):
            raise VptError(
                f"{ORIGIN.title}: {alone[0]} ({word}) has no {'mask' if alone[0] in images else 'image'}; "
                "get all archives again"
            )
        for name in images:
            place(images[name], new / "images" / images[name].name)
            place(masks[name], new / "masks" / f"{name}.png")
        split[side] = sorted(images)
    write_json(new / "dataset.json", ORIGIN.description({"background": 0, "lesion": LESION}))
    write_split(new, split)


def pictures(folder: Path, ending: str) -> dict[str, Path]:
    """ISIC_0000000 -> its file; `ending` is what follows the name. Superpixels are left out."""
    found = ((case_name(path), path) for path in scan_files(folder, "images"))
    return {
        name.removesuffix(ending): path
        for name, path in found
        if name.endswith(ending) and not name.endswith("_superpixels")
    }


def main() -> None:
    prepare(ORIGIN, options(__doc__).parse_args(), build)


if __name__ == "__main__":
    main()
