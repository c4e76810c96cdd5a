"""Two sites of one modality, with the same two classes and as many images: chest X-rays of Shenzhen and of Guangzhou.

    python benchmarks/xray_sites.py ../shared/data runs/sites
    vpt continual runs/sites/shenzhen runs/sites/guangzhou --seeds 1

Shenzhen is cxr_lung (normal, or with tuberculosis: names that end in _1), Guangzhou cxr_pneumonia (normal, or with
pneumonia), drawn to as many images on each of its fixed sides, half of them ill. Classes: normal, ill.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

Case = tuple[str, Path]  # class, image


def main() -> None:
    data, out = map(Path, sys.argv[1:])
    shenzhen = {side: of_shenzhen(data / "cxr_lung", names) for side, names in sides(data / "cxr_lung").items()}
    rng = random.Random(0)
    guangzhou = {
        side: of_guangzhou(data / "cxr_pneumonia", names, len(shenzhen[side]), rng)
        for side, names in sides(data / "cxr_pneumonia").items()
    }
    for name, cases in (("shenzhen", shenzhen), ("guangzhou", guangzhou)):
        write(out / name, cases)
        print(name, {side: f"{len(of)}, {sum(kind == 'ill' for kind, _ in of)} ill" for side, of in cases.items()})


def sides(data: Path) -> dict[str, list[str]]:
    split = json.loads((data / "split.json").read_text(encoding="utf-8"))
    return {side: split[side] for side in ("train", "val", "test")}


def of_shenzhen(data: Path, names: Sequence[str]) -> list[Case]:
    return [("ill" if name.endswith("_1") else "normal", data / "images" / f"{name}.jpg") for name in names]


def of_guangzhou(data: Path, names: Sequence[str], number: int, rng: random.Random) -> list[Case]:
    normal = sorted(name for name in names if name.startswith("normal"))
    ill = sorted(set(names) - set(normal))
    drawn = [("normal", rng.sample(normal, min(number // 2, len(normal)))), ("ill", rng.sample(ill, number // 2))]
    return [(kind, data / name) for kind, chosen in drawn for name in chosen]


def write(folder: Path, cases: Mapping[str, Sequence[Case]]) -> None:
    """A folder for each class, with the images, and the sides."""
    for kind in ("normal", "ill"):
        (folder / kind).mkdir(parents=True)
    split = {side: [f"{kind}/{image.name}" for kind, image in of] for side, of in cases.items()}
    for kind, image in (case for of in cases.values() for case in of):
        shutil.copy(image, folder / kind / image.name)
    (folder / "split.json").write_text(json.dumps(split), encoding="utf-8")


if __name__ == "__main__":
    main()
