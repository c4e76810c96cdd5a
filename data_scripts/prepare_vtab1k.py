"""Turn one task of VTAB-1k (Zhai et al., 2019), as PyTorch projects pass it on, into a folder that `vpt` reads.

Such a task is a folder, or an archive of one, with train800.txt, val200.txt, train800val200.txt and test.txt, whose
lines are `images/test/000007.jpg 42`. The result has labels.csv (path, label, split) and the images below images/.
Images are linked where the disk allows it, copied elsewhere, and never moved.

    python data_scripts/prepare_vtab1k.py --from vtab-1k/caltech101 --to data/caltech101 --names classes.txt
    vpt check data/caltech101
    vpt train data/caltech101 --task classification

Its protocol chooses settings on the 200 and then trains on all 1000: `--set data.use_val=true`.
The lists hold classes as numbers; `--names` is a text file with their names, one a line, that of class 0 first.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from pathlib import Path, PurePosixPath

from preparing import told

from vpt.data.cases import kind_of
from vpt.errors import VptError
from vpt.published.archives import ENDINGS, below, extract, is_archive
from vpt.published.material import new_folder, place
from vpt.readers import SUPPORTED

LISTS = {"train": "train800.txt", "val": "val200.txt", "test": "test.txt"}
UNION = "train800val200.txt"
SIZES = {"train800.txt": 800, "val200.txt": 200, UNION: 1000}
Line = tuple[PurePosixPath, int]  # an image below the task's folder, and its class


def prepare(source: Path, target: Path, names: Path | None = None) -> Path:
    """`target` with labels.csv and images/, whole or not at all.

    Raises:
        VptError: a target that is there already, or a task that is not what VTAB-1k says.
    """
    with new_folder(target) as (scratch, new):
        folder = task_folder(source, scratch)
        lists = {side: read_list(folder, name) for side, name in LISTS.items()}
        check_lists(folder, lists)
        build(folder, new, lists, class_names(names, lists))
    return target


# --- the task ---------------------------------------------------------------------------------------------------------


def task_folder(source: Path, scratch: Path) -> Path:
    """The folder with the lists: the source itself, or the one in an archive, unpacked into `scratch`."""
    if source.is_dir():
        return source
    if not source.is_file():
        raise VptError(f"{source}: no such folder or archive; give a task of VTAB-1k with --from")
    if not is_archive(source):
        raise VptError(f"{source}: neither a folder nor an archive; expected one that ends in {', '.join(ENDINGS)}")
    unpacked = scratch / "unpacked"
    unpacked.mkdir()
    extract(source, unpacked)
    found = sorted(path.parent for path in unpacked.rglob(LISTS["train"]))
    if len(found) != 1:
        tasks = ", ".join(str(path.relative_to(unpacked)) for path in found[:20]) or "none"
        raise VptError(f"{source}: expected one folder with {LISTS['train']}, found {tasks}; unpack it, then give one")
    return found[0]


def read_list(folder: Path, name: str) -> list[Line]:
    """The lines of a list, an image and its class each."""
    source = folder / name
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise VptError(
            f"{source}: no such file; a task of VTAB-1k has {', '.join([*LISTS.values(), UNION])}"
        ) from error
    except UnicodeDecodeError as error:
        raise VptError(f"{source}: no UTF-8 text ({error}); get the list again") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        path, _, label = line.strip().rpartition(" ")
        if not path.strip() or not (label.isascii() and label.isdecimal()):
            raise VptError(f"{source}: line {number} is {line!r}, expected an image and its class: images/a.jpg 42")
        found.append((below(source, path.strip()), int(label)))
    expected = SIZES.get(name)
    if expected is not None and len(found) != expected:
        raise VptError(f"{source}: {len(found)} images, expected {expected}; get the lists of VTAB-1k again")
    if not found:
        raise VptError(f"{source}: lists no images; get the lists of VTAB-1k again")
    return found


def check_lists(folder: Path, lists: dict[str, list[Line]]) -> None:
    """No image twice, every file there, and the list of 1000 is that of 800 and that of 200.

    Some copies keep the 1000 in a folder of their own, so the union is compared by how often it has each class.
    """
    owner: dict[PurePosixPath, str] = {}
    for side, lines in lists.items():
        for path, _ in lines:
            if path in owner:
                raise VptError(f"{folder / LISTS[side]}: {path} is already in {owner[path]}; list it once")
            owner[path] = LISTS[side]
    if odd := [path for path in owner if kind_of(Path(path)) != "images"]:
        raise VptError(f"{folder / owner[odd[0]]}: {odd[0]} is no image; {SUPPORTED}")
    if gone := [path for path in owner if not (folder / path).is_file()]:
        raise VptError(f"{folder}: {len(gone)} of {len(owner)} images are missing, first {gone[0]}; unpack all of them")
    both, union = lists["train"] + lists["val"], read_list(folder, UNION)
    known = dict(both)
    if Counter(label for _, label in union) != Counter(label for _, label in both):
        raise VptError(f"{folder / UNION}: its classes are not those of train800.txt and val200.txt; get them again")
    if changed := [path for path, label in union if known.get(path, label) != label]:
        raise VptError(f"{folder / UNION}: {changed[0]} has another class than in its own list; get the lists again")


def class_names(source: Path | None, lists: dict[str, list[Line]]) -> list[str]:
    """The name of each class by its number; the number itself where no names are given."""
    highest = max(label for lines in lists.values() for _, label in lines)
    if source is None:
        return [str(number) for number in range(highest + 1)]
    try:
        names = [line.strip() for line in source.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise VptError(f"{source}: cannot be read ({error}); give a text file, a name on each line") from error
    while names and not names[-1]:
        names.pop()
    if len(names) <= highest:
        raise VptError(f"{source}: {len(names)} names, but classes go up to {highest}; give {highest + 1} names")
    if wrong := [name for name in names if not name or "|" in name]:
        raise VptError(f"{source}: {wrong[0]!r} is no name of a class; every line needs one, without |")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise VptError(f"{source}: {twice[0]!r} names two classes; give each its own name")
    return names


# --- the result -------------------------------------------------------------------------------------------------------


def build(folder: Path, new: Path, lists: dict[str, list[Line]], names: list[str]) -> None:
    """labels.csv and the images that it names, in a new folder."""
    with open(new / "labels.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "split"])
        for side, lines in lists.items():
            for path, label in lines:
                writer.writerow([path, names[label], side])
                place(folder / path, new / path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="source", type=Path, required=True, help="a task's folder, or an archive of it")
    parser.add_argument("--to", type=Path, required=True, help="the folder to make")
    parser.add_argument("--names", type=Path, help="text file with the classes' names, that of class 0 first")
    args = parser.parse_args()
    with told():
        print(f"{prepare(args.source, args.to, args.names)}: ready, look at it with `vpt check {args.to}`")


if __name__ == "__main__":
    main()
