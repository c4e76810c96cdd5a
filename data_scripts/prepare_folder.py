"""Check any folder of images and masks, and write down what it is: dataset.json as it was guessed, and a split.json.

    python data_scripts/prepare_folder.py data/mine
    vpt train data/mine

The guess is that of `vpt check data/mine --write dataset.json`. A folder with errors is left as it is, and they are
shown. What is there already is kept. 70, 10 and 20 percent of the patients are drawn for training, validation and test,
always the same with the same `--seed`; whose a case is, is guessed from its name unless dataset.json says it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from preparing import told
from rich.console import Console

from vpt.data.check import check_dataset
from vpt.data.labelled import LabelledSet
from vpt.data.layouts import is_labelled, read_dataset, read_labelled, write_description
from vpt.errors import VptError
from vpt.progress import bar
from vpt.published.material import draw, write_split


def prepare(folder: Path, seed: int = 0) -> list[Path]:
    """The files that were written. Raises VptError where the data set has errors."""
    if not folder.is_dir():
        raise VptError(f"{folder}: no such folder; give the one with the images and masks")
    with bar("checking") as tick:
        found = check_dataset(folder, tick)
    Console().print(found.table())
    if not found.ok:
        raise VptError(f"{folder}: has errors, nothing was written; mend what is listed above, then run this again")
    dataset = read_labelled(folder) if is_labelled(folder) else read_dataset(folder)
    written = []
    if not isinstance(dataset, LabelledSet) and not (folder / "dataset.json").exists():
        written += write_description(read_dataset(folder), folder / "dataset.json")
    if dataset.sides or any((folder / name).exists() for name in ("split.json", "splits_final.json")):
        return written
    strata = {case.name: str(getattr(case, "target", "")) for case in dataset.cases}
    write_split(folder, draw({case.name: dataset.patient(case.name) for case in dataset.cases}, strata, seed))
    return [*written, folder / "split.json"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder; files are written into it")
    parser.add_argument("--seed", type=int, default=0, help="of the split that is drawn")
    args = parser.parse_args()
    with told():
        written = prepare(args.folder, args.seed)
    print(f"written: {', '.join(map(str, written)) or 'nothing, all is there'}; train with `vpt train {args.folder}`")


if __name__ == "__main__":
    main()
