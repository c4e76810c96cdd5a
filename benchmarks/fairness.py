"""Whether ways to treat groups alike help against a mark that goes with the class in training and not in test.

    python benchmarks/fairness.py ../shared/data/brain_tumor_mri4 OUT --mark tint --seeds 3

plants it in real images, trains every way with every seed, and prints the table of docs/results. What is finished in
OUT is not done again.

    python benchmarks/fairness.py ../shared/data/ct_liver2d OUT --masks --seeds 2

does so for segmentation: one training image in ten is of a site whose scanner is noisy, and every test image is
segmented twice, as each of the two sites has it.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vpt.data.layouts import read_dataset
from vpt.data.splits import read_splits
from vpt.engine.run import train
from vpt.scores.bootstrap import bootstrap
from vpt.use.runs import evaluate_run

SITES = ("north", "south")
TIE = 0.9  # share of a class that has its own site where the mark is tied to the class
VALIDATION = 0.3  # of what is not test
SETTINGS: dict[str, Any] = {
    "plan.image_size": 32,
    "prompts": {"method": "deep", "count": 10},
    "train.epochs": 6,
    "precision": "32-true",
    "train.augment": "none",
    "train.workers": 0,
    "device": "cpu",
}
RARE = 0.1  # share of the training images that are of the noisy site, where masks are learned
NOISE = 40.0  # its deviation, of 255, at the pixels that the encoder sees
COUNTS = {"train": 96, "val": 24, "test": 40}  # images of a set with masks
OF_MASKS: dict[str, Any] = SETTINGS | {
    "task": "segmentation",
    "plan.image_size": 64,
    "prompts": {"method": "deep", "count": 10, "blocks": "last:2"},
    "train.epochs": 2,
    "train.max_steps": 15,
    "train.batch_size": 16,
}
NONE: dict[str, Any] = {"prompts": {"method": "none"}}
CELLS: dict[str, Any] = {"by": "site", "by_class": True}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "balanced": {"fair": {"method": "balanced", "by": "site", "choose": "mean"}},
    "balanced, by class": {"fair": {"method": "balanced", **CELLS}},
    "group DRO": {"fair": {"method": "group_dro", "by": "site"}},
    "group DRO, by class": {"fair": {"method": "group_dro", **CELLS}},
    "reprogram": {"fair": {"method": "reprogram", "by": "site"}},
    "reprogram, weight 5": {"fair": {"method": "reprogram", "by": "site", "weight": 5.0}},
    "head alone": NONE,
    "reprogram without prompts": NONE | {"fair": {"method": "reprogram", "by": "site"}},
}


def planted(source: Path, out: Path, classes: Sequence[str], mark: str) -> Path:
    """A labels.csv of two classes in which the site is told by a mark, tied to the class but on the test side.

    tint: red is weakened at one site, blue at the other. noise: the second site's images are noisy.
    """
    out.mkdir(parents=True)
    sides = json.loads((source / "split.json").read_text())
    rng = np.random.default_rng(0)
    rows = [["path", "label", "split", "site"]]
    for kind, name in enumerate(classes):
        for test, cases in ((False, [*sides["train"], *sides["val"]]), (True, sides["test"])):
            own = sorted(case for case in cases if case.startswith(f"{name}/"))
            order, chance = rng.permutation(len(own)), 0.5 if test else TIE
            ties = _shuffled(len(own), chance, rng)
            for place, (case, tied) in enumerate(zip((own[k] for k in order), ties, strict=True)):
                site = kind if tied else 1 - kind
                side = "test" if test else "val" if place % 10 < 10 * VALIDATION else "train"
                pixels = marked(np.asarray(Image.open(source / case).convert("RGB")), site, mark, rng)
                file = f"{name}_{Path(case).stem}.png"
                Image.fromarray(pixels).save(out / file)
                rows.append([file, name, side, SITES[site]])
    with open(out / "labels.csv", "w", newline="") as file_of_rows:
        csv.writer(file_of_rows).writerows(rows)
    return out


def marked(pixels: np.ndarray, site: int, mark: str, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 as a scanner of that site would have made it."""
    if mark == "tint":
        scale = np.ones(3)
        scale[2 * site] = 0.7
        return (pixels * scale).astype(np.uint8)
    noise = rng.normal(0, 25 * site, pixels.shape[:2])[..., None]
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def planted_masks(source: Path, out: Path) -> Path:
    """images/, masks/, sites.csv: every test image as both sites have it, of the others RARE as the noisy one does."""
    dataset = read_dataset(source, None, None)
    sides = read_splits(dataset).to_dict()
    (value,) = [each for each in dataset.labels if each]
    rng, side = np.random.default_rng(0), OF_MASKS["plan.image_size"]
    for folder in ("images", "masks"):
        (out / folder).mkdir(parents=True)
    rows, kept = [["case", "site"]], dict[str, list[str]]()
    for part, count in COUNTS.items():
        names = [sides[part][k] for k in rng.permutation(len(sides[part]))[:count]]
        noisy = set(names[: round(RARE * count)])
        kept[part] = []
        for name in names:
            case = dataset.case(name)
            assert case.label is not None
            pixels = np.asarray(
                Image.open(case.images[0]).convert("L").resize((side, side), Image.Resampling.BOX), float
            )
            mask = Image.open(case.label).resize((side, side), Image.Resampling.NEAREST)
            for site in (0, 1) if part == "test" else (int(name in noisy),):
                called = f"{name}_{SITES[site]}"
                noise = rng.normal(0, NOISE * site, pixels.shape)
                Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(out / f"images/{called}.png")
                mask.save(out / f"masks/{called}.png")
                rows.append([called, SITES[site]])
                kept[part].append(called)
    (out / "split.json").write_text(json.dumps(kept))
    (out / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "object": value}}))
    with open(out / "sites.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return out


def _shuffled(count: int, share: float, rng: np.random.Generator) -> list[bool]:
    """That share of them True, spread so that every stretch of ten has it."""
    found: list[bool] = []
    while len(found) < count:
        found += rng.permutation([True] * round(10 * share) + [False] * (10 - round(10 * share))).tolist()
    return found[:count]


@dataclass(frozen=True)
class Tested:
    """right: (seeds, cases) bool; cells: class and site of each case; tied: cells of which the training has many."""

    right: np.ndarray
    cells: list[tuple[str, str]]
    tied: frozenset[tuple[str, str]]

    def scores(self) -> dict[str, tuple[float, float, float]]:
        """Mean accuracy, that of the worst cell, and by how much it is higher where the mark tells the class."""
        mean = self.right.mean(0)
        names = sorted(set(self.cells))
        own = {cell: np.array([each == cell for each in self.cells]) for cell in names}
        worst = min(names, key=lambda cell: mean[own[cell]].mean())
        tied = np.array([each in self.tied for each in self.cells])

        def of(weights: np.ndarray) -> dict[str, np.ndarray]:
            def over(places: np.ndarray) -> np.ndarray:
                return (mean[places] @ weights[places]) / weights[places].sum(0)

            return {"mean": over(tied | True), "worst": over(own[worst]), "gap": over(tied) - over(~tied)}

        values, intervals = of(np.ones((len(mean), 1))), bootstrap(of, len(mean))
        return {name: (float(values[name][0]), *intervals[name]) for name in values}


def run_way(data: Path, out: Path, settings: Mapping[str, Any], seeds: int) -> Tested:
    """Train and test with each seed."""
    lines = list(csv.DictReader((data / "labels.csv").open()))
    cell_of = {Path(line["path"]).stem: (line["label"], line["site"]) for line in lines}
    kinds = list(dict.fromkeys(line["label"] for line in lines))
    rows, cells = [], []
    for seed in range(seeds):
        run = out / f"seed-{seed}"
        if not (run / "model_card.md").exists():
            train(data, run, overrides=SETTINGS | dict(settings) | {"seed": seed}, cache=data / "cache", brief=True)
        report, _ = evaluate_run(run, device="cpu")
        rows.append(report.probabilities.argmax(1) == report.targets.argmax(1))
        cells = [cell_of[name] for name in report.names]
    return Tested(np.stack(rows), cells, frozenset(zip(kinds, SITES, strict=True)))


@dataclass(frozen=True)
class Segmented:
    """dice: (seeds, images, sites); names: of the images."""

    dice: np.ndarray
    names: list[str]

    def scores(self, patient: Callable[[str], str]) -> dict[str, tuple[float, float, float]]:
        """Mean Dice at the common site, at the rare one, and by how much the first is higher."""
        common, rare = self.dice.mean(0).T

        def of(weights: np.ndarray) -> dict[str, np.ndarray]:
            found = {"common": common, "rare": rare, "gap": common - rare}
            return {name: values @ weights / weights.sum(0) for name, values in found.items()}

        values, intervals = of(np.ones((len(common), 1))), bootstrap(of, len(common), list(map(patient, self.names)))
        return {name: (float(values[name][0]), *intervals[name]) for name in values}


def run_way_of_masks(data: Path, out: Path, settings: Mapping[str, Any], seeds: int) -> Segmented:
    """Train and test with each seed."""
    fair = settings.get("fair")
    own = {**settings, "fair": {**fair, "groups": str(data / "sites.csv"), "choose": "mean"}} if fair else settings
    found, names = [], list[str]()
    for seed in range(seeds):
        run = out / f"seed-{seed}"
        if not (run / "model_card.md").exists():
            train(data, run, overrides=OF_MASKS | dict(own) | {"seed": seed}, cache=data / "cache", brief=True)
        report, _ = evaluate_run(run, device="cpu")
        scored = dict(zip((case.name for case in report.cases), np.nanmean(report.values("Dice"), 1), strict=True))
        names = sorted({name.rpartition("_")[0] for name in scored})
        found.append([[scored[f"{name}_{site}"] for site in SITES] for name in names])
    return Segmented(np.array(found), names)


MASK_WAYS = ("plain", "balanced", "group DRO", "reprogram")


def main_of_masks(given: argparse.Namespace) -> None:
    data = given.out / "masks"
    if not data.exists():
        planted_masks(given.source, data)
    patient = read_dataset(given.source, None, None).patient
    print("| way | the common site | the rare, noisy site | common minus rare |\n|---|---|---|---|", flush=True)
    for way in given.ways or MASK_WAYS:
        folder = given.out / "runs" / "masks" / way.replace(", ", "-").replace(" ", "_")
        found = run_way_of_masks(data, folder, WAYS[way], given.seeds).scores(patient)
        cells = [f"{value:.3f} ({low:.3f} to {high:.3f})" for value, low, high in found.values()]
        print(f"| {way} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mark", choices=("tint", "noise"), default="tint")
    parser.add_argument("--classes", nargs=2, default=("glioma", "meningioma"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", nargs="*")
    parser.add_argument("--masks", action="store_true", help="segmentation, a rare site with noise")
    given = parser.parse_args()
    if given.masks:
        main_of_masks(given)
        return
    data = given.out / given.mark
    if not data.exists():
        planted(given.source, data, given.classes, given.mark)
    print("| way | mean | worst cell | with the mark minus against it |\n|---|---|---|---|", flush=True)
    for way in given.ways or WAYS:
        folder = given.out / "runs" / given.mark / way.replace(", ", "-").replace(" ", "_")
        found = run_way(data, folder, WAYS[way], given.seeds).scores()
        cells = [f"{value:.3f} ({low:.3f} to {high:.3f})" for value, low, high in found.values()]
        print(f"| {way} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
