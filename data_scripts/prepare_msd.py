"""Fetch a task of the Medical Segmentation Decathlon, or take it from disk, and draw a split by case.

    python data_scripts/prepare_msd.py --task Task04_Hippocampus --to data/hippocampus
    vpt check data/hippocampus
    vpt train data/hippocampus

The result is the task as published, with a split.json: the Decathlon gives none for its labelled scans, so 70, 10 and
20 percent of the cases are drawn (always the same with the same `--seed`); or `--split` gives one, of whose cases alone
the set is then made. configs/splits/hippocampus.json is that of the numbers in README and docs/results. imagesTs/
has no labels and is for `vpt predict`. Of the four channels of Task01_BrainTumour `--channels` keeps some, in copies of
the scans.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from preparing import options, prepare, told

from vpt.published.msd import TASKS, build, origin_of


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--task", required=True, help=", ".join(TASKS))
    parser.add_argument("--channels", default="", help="channels to keep, with commas: FLAIR,t1gd,T2w")
    parser.add_argument("--seed", type=int, default=0, help="of the split that is drawn")
    parser.add_argument("--split", type=Path, help="a split.json to use instead, for example of configs/splits/")
    args: argparse.Namespace = parser.parse_args()
    with told():
        origin = origin_of(args.task)
    channels = [name for name in args.channels.split(",") if name]
    prepare(origin, args, partial(build, args.task, args.seed, args.split, channels=channels))


if __name__ == "__main__":
    main()
