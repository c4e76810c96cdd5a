"""Tasks of the Medical Segmentation Decathlon as data sets with sides."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from vpt.data.cases import case_name, scan_files
from vpt.data.layouts.description import read_channels
from vpt.errors import VptError
from vpt.files import read_json, write_json
from vpt.published.material import Archive, Material, Origin, draw, make_set, place, write_split
from vpt.readers.nifti import copy_channels
from vpt.vocabulary import SIDES
from vpt.words import did_you_mean, listed

HOST = "https://msd-for-monai.s3-us-west-2.amazonaws.com"
TASKS = {  # name -> the size of the archive, and its MD5
    "Task01_BrainTumour": ("7.1 GB", "240a19d752f0d9e9101544901065d872"),
    "Task02_Heart": ("0.4 GB", "06ee59366e1e5124267b774dbd654057"),
    "Task03_Liver": ("27 GB", "a90ec6c4aa7f6a3d087205e23d4e6397"),
    "Task04_Hippocampus": ("28 MB", "9d24dba78a72977dbd1d2e110310f31b"),
    "Task05_Prostate": ("0.2 GB", "35138f08b1efaef89d7424d2bcc928db"),
    "Task06_Lung": ("8.5 GB", "8afd997733c7fc0432f71255ba4e52dc"),
    "Task07_Pancreas": ("11 GB", "4f7080cfca169fa8066d17ce6eb061e4"),
    "Task08_HepaticVessel": ("8.7 GB", "641d79e80ec66453921d997fbf12a29c"),
    "Task09_Spleen": ("1.5 GB", "410d4a301da4e5b2f6f86ec3ddba524e"),
    "Task10_Colon": ("5.8 GB", "bad7a188931dc2f6acf72b08eb6202d0"),
}
NAMES = {task[len("Task01_") :].lower(): task for task in TASKS}  # what `vpt fetch-data` calls them
SPLITS = {
    "Task04_Hippocampus": Path(__file__).parents[1] / "assets" / "hippocampus_split.json"
}  # of documented numbers
PARTS = ("imagesTr", "labelsTr", "imagesTs")


def origin_of(task: str) -> Origin:
    if task not in TASKS:
        raise VptError(f"{task}: no task of the Decathlon; choose one of {', '.join(TASKS)}{did_you_mean(task, TASKS)}")
    size, md5 = TASKS[task]
    return Origin(
        f"Medical Segmentation Decathlon, {task}",
        "http://medicaldecathlon.com",
        size,
        "CC BY-SA 4.0",
        "Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13, 4128 (2022)",
        (Archive(f"{task}.tar", f"{HOST}/{task}.tar", md5=md5),),
    )


def origin_called(name: str) -> Origin:
    """`hippocampus` -> where it comes from; raises VptError where no task is called so."""
    if name not in NAMES:
        raise VptError(f"{name}: no data set is called so; choose one of {', '.join(NAMES)}{did_you_mean(name, NAMES)}")
    return origin_of(NAMES[name])


def fetch_task(name: str, to: Path, source: Path | None = None, downloads: Path | None = None) -> str:
    """The task in a new folder, with our split where numbers of it are documented, else with one that is drawn.

    Raises:
        VptError: see `make_set`; a name that is none.
    """
    origin, task = origin_called(name), NAMES[name]
    return make_set(origin, to, source, downloads, partial(build, task, 0, SPLITS.get(task)))


def build(
    task: str, seed: int, split: Path | None, material: Material, new: Path, channels: Sequence[str] = ()
) -> None:
    """The task's folder in `new`, with links to its scans, and split.json: `split`, of its cases alone, or drawn.

    channels: those that are kept of a scan with several, in copies; none keeps all.
    """
    folder = task_folder(task, material)
    content = read_json(folder / "dataset.json")
    names = case_names(content, folder)
    sides = read_sides(split, names) if split else draw({name: name for name in names}, seed=seed)
    content = only_of(set(chain.from_iterable(sides.values())), content)
    keep = chosen(read_channels(content, folder / "dataset.json"), channels, folder)
    for source in (path for part in PARTS if (folder / part).is_dir() for path in scan_files(folder / part)):
        target = new / source.relative_to(folder)
        if source.parent.name != "imagesTs" and case_name(source) not in chain.from_iterable(sides.values()):
            continue
        if keep is None or source.parent.name == "labelsTr":
            place(source, target)
        else:
            copy_channels(source, target, keep)
    write_json(new / "dataset.json", content if keep is None else content | {"modality": dict(enumerate(channels))})
    write_split(new, sides)


def read_sides(path: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """The sides of a split.json; raises VptError where it is none, or names cases that are not among `names`."""
    sides = read_json(path)
    if not isinstance(sides, dict) or not all(isinstance(sides.get(side), list) for side in SIDES):
        raise VptError(f"{path}: expected the lists {', '.join(SIDES)} of case names; see configs/splits/")
    if missing := sorted(set(chain.from_iterable(sides.values())) - set(names)):
        raise VptError(f"{path}: the task has no case {listed(missing)}; give the split of this task")
    return {side: sides[side] for side in SIDES}


def only_of(wanted: Collection[str], content: dict[str, Any]) -> dict[str, Any]:
    """The dataset.json of these cases."""
    entries = [entry for entry in content["training"] if case_name(entry["image"]) in wanted]
    return content | {"training": entries, "numTraining": len(entries)}


def task_folder(task: str, material: Material) -> Path:
    """The folder with the task's dataset.json, whatever it is called."""
    if material.source and (material.source / "dataset.json").is_file():
        return material.source
    folder = material.folder(task)
    if not (folder / "dataset.json").is_file():
        raise VptError(f"{folder}: no dataset.json in it; {material.origin.by_hand}")
    return folder


def case_names(content: dict[str, Any], folder: Path) -> list[str]:
    try:
        return [case_name(entry["image"]) for entry in content["training"]]
    except (KeyError, TypeError) as error:
        raise VptError(
            f"{folder / 'dataset.json'}: no list `training` of images and labels; get the task again"
        ) from error


def chosen(known: Sequence[str], wanted: Sequence[str], folder: Path) -> list[int] | None:
    """Which channels are kept; None for all of them."""
    if unknown := [name for name in wanted if name not in known]:
        raise VptError(f"{folder}: no channel is called {unknown[0]}; choose of {', '.join(known)} with --channels")
    return [known.index(name) for name in wanted] if wanted else None
