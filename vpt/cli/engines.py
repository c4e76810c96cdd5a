"""`vpt predict --engine`: where the scans of an archive are answered."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vpt.cli.shared import usage

if TYPE_CHECKING:
    from vpt.use.archives import Asked, ModelMark
    from vpt.use.archives.batch import Spread

Engine = Annotated[
    str, typer.Option(help="local (this process), or ray: workers on the cluster of RAY_ADDRESS, or on this machine.")
]
Workers = Annotated[
    int | None, typer.Option(help="With --engine ray: how many hold the model; default one a GPU, or for four cores.")
]


def spread_over(
    engine: str, workers: int | None, loading: dict[str, Any], out: Path, asked: Asked, mark: ModelMark
) -> Spread | None:
    """What answers the scans, None for this process; loading: arguments of `vpt.load` but for the model."""
    if engine not in ("local", "ray"):
        usage(f"--engine {engine}: expected local or ray")
    if engine == "local":
        if workers is not None:
            usage(f"--workers {workers}: goes with --engine ray; of several processes here see --num-parts")
        return None
    from vpt.use.archives.batches import loaded_batch
    from vpt.use.archives.outputs import is_single
    from vpt.use.archives.ray_cluster import require_ray
    from vpt.use.archives.with_ray import Cluster

    if workers is not None and workers < 1:
        usage(f"--workers {workers}: expected one or more")
    if is_single(out):
        usage(f"-o {out}: --engine ray answers into a folder; give one")
    require_ray()
    if loading["weights"]:
        loading = loading | {"weights": loading["weights"].absolute()}
    artifacts = [path.absolute() for path in mark.artifacts]
    make = partial(loaded_batch, artifacts, loading, out.absolute(), asked, mark)
    return Cluster(make, out.absolute(), workers, gpu=loading["device"] == "cuda")
