"""What `vpt info` and `vpt doctor` say."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from vpt.data.postprocess import in_words
from vpt.versions import version_of
from vpt.vocabulary import DECIDED, NO_ENCODER

if TYPE_CHECKING:
    from rich.table import Table

    from vpt.artifact import Artifact
    from vpt.backbones.base import BackboneSpec
    from vpt.backbones.origin import Origin

PACKAGES = (
    "vpt",
    "torch",
    "torchvision",
    "timm",
    "segment-anything",
    "monai",
    "nibabel",
    "albumentations",
    "lightning",
)
OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")


Facts = list[tuple[str, str]]  # what it is called, and what it is


def describe(target: str) -> Facts:
    """A run's folder or an artifact, else a backbone by name.

    Raises:
        VptError: neither.
    """
    path = Path(target)
    if path.suffix == ".safetensors" or path.is_file() or (path.is_dir() and not (path / "config.json").is_file()):
        from vpt.artifact import read_artifact

        return [*artifact_facts(read_artifact(path)), *split_facts(path)]
    return list(_backbone_facts(target))


def split_facts(run_or_artifact: Path) -> Facts:
    """How many cases each side of a run's split has, and the SHA-256 of their names, by which splits are compared."""
    from vpt.artifact import find_artifact
    from vpt.data.splits import read_written

    source = find_artifact(run_or_artifact).parent / "splits.json"
    sides = read_written(source).to_dict() if source.is_file() else {}
    return [(f"{side} cases", _counted(names)) for side, names in sides.items() if names]


def _counted(names: Iterable[str]) -> str:
    listed = sorted(names)
    digest = sha256("\n".join(listed).encode()).hexdigest()
    return f"{len(listed)}, SHA-256 of their names {digest}"


def artifact_facts(artifact: Artifact) -> Iterable[tuple[str, str]]:
    """Rows of `vpt info` for an artifact."""
    yield "artifact", f"{artifact.path} ({artifact.path.stat().st_size / 1e6:.2f} MB)"
    yield from _encoder_facts(artifact)
    yield from _trained_facts(artifact)
    yield from _data_facts(artifact)
    yield from _chosen_facts(artifact)
    yield "data", str(artifact.config.data.path)
    yield "made with", ", ".join(f"{name} {number}" for name, number in artifact.versions.items())


def _encoder_facts(artifact: Artifact) -> Iterable[tuple[str, str]]:
    config = artifact.config
    if config.backbone.name == NO_ENCODER:
        yield "backbone", f"{NO_ENCODER}: the head reads the images alone"
    else:
        yield "backbone", f"{config.backbone.name}, weights {config.backbone.weights or 'pretrained'}"
        yield "weights SHA-256", artifact.backbone_sha256
    yield from _origin_facts(artifact.origin)
    if artifact.preprocessing:
        yield "preprocessing", ", ".join(f"{key} {value}" for key, value in artifact.preprocessing.items())


def _trained_facts(artifact: Artifact) -> Iterable[tuple[str, str]]:
    """What was trained, and for which tasks."""
    from vpt.artifact_tasks import tasks_of
    from vpt.model import trained_parts

    counts, config = artifact.counts, artifact.config
    if config.start.path is not None:
        yield "started from", f"{config.start.path}, SHA-256 {config.start.sha256}"
    yield "task", f"{config.task}{f', {config.data.target}' if config.data.target else ''}"
    for part, settings in (("prompts", config.prompts), ("head", config.head)):
        values = settings.model_dump(exclude={"learned"} if part == "head" else None, exclude_none=True)
        yield part, ", ".join(f"{key} {value}" for key, value in values.items())
    if artifact.earlier:
        tasks = tasks_of(artifact).items()
        named = (f"{task}: {', '.join(name for label, name in each.labels.items() if label)}" for task, each in tasks)
        yield "tasks", "; ".join(named)
    if config.head.kind == "by_task":
        tasks = config.head.learned.items()
        yield "tasks", "; ".join(f"{task}: {', '.join(classes)}" for task, classes in tasks)
    tuning = config.tuning.model_dump(exclude={"method"}, exclude_none=True)
    yield "tuning", ", ".join([config.tuning.method, *(f"{key} {value}" for key, value in tuning.items())])
    if config.fair is not None:
        yield "fair", f"{config.fair.method}, groups by {config.fair.by}"
    shares = ", ".join(f"{counts.get(part, 0):,} {part}" for part in trained_parts(counts))
    yield "trained parameters", f"{counts['trained']:,} ({shares})"
    yield "frozen parameters", f"{counts['frozen']:,}"


def _data_facts(artifact: Artifact) -> Iterable[tuple[str, str]]:
    """Labels, and how scans are prepared."""
    from vpt.artifact_tasks import labels_of
    from vpt.data.label_values import LabelValues

    plan = artifact.plan
    yield "labels", ", ".join(f"{label} {name}" for label, name in labels_of(artifact).items())
    if plan.label_values:
        yield "label values", str(LabelValues(plan.label_values))
    yield "channels", ", ".join(plan.channels)
    yield "plan", str(plan)
    yield "intensity", "; ".join(dict.fromkeys(map(str, plan.intensity)))


def _chosen_facts(artifact: Artifact) -> Iterable[tuple[str, str]]:
    """What validation chose and why, and the scores."""
    if artifact.temperature != 1:
        yield "temperature", f"{artifact.temperature:.3g}"
    if artifact.decision != "likeliest":
        yield "decision", f"{DECIDED[artifact.decision]}; chosen on validation"
    if artifact.postprocess:
        yield "post-processing", f"{in_words(artifact.postprocess, artifact.labels)}; chosen on validation"
    for what, why in artifact.plan.reasons.items():
        yield f"  why {what}", why
    for split, scores in artifact.scores.items():
        yield f"{split} scores", ", ".join(f"{key} {value:.4g}" for key, value in scores.items() if value is not None)


def _origin_facts(origin: Origin | None) -> Iterable[tuple[str, str]]:
    if origin:
        yield "weights of", origin.weights
        yield "their licence", origin.licence


def _backbone_facts(name: str) -> Iterable[tuple[str, str]]:
    from vpt.backbones.families import describe_backbone, family_of, load_backbone, published

    own = family_of(name).fetch is None  # others would be downloaded just to be described
    spec = describe_backbone(name)
    backbone = load_backbone(name, weights=None if own else "random")
    yield "backbone", name
    yield "parameters", f"{sum(p.numel() for p in backbone.parameters()):,}"
    yield "image", f"{spec.image_size[0]}x{spec.image_size[1]} px, patch {spec.patch[0]}x{spec.patch[1]}"
    yield from _block_facts(spec)
    yield "preprocessing", f"mean {spec.mean}, std {spec.std}, padding {spec.padding}"
    if spec.blocks:
        yield "weights SHA-256", backbone.sha256 if own else "known once they are loaded, by training"
        yield from _origin_facts(published(name))


def _block_facts(spec: BackboneSpec) -> Iterable[tuple[str, str]]:
    if not spec.blocks:
        yield "blocks", "none: the head reads the images alone"
        return
    grids = list(dict.fromkeys(block.grid for block in spec.blocks))
    widths, heads = (
        ", ".join(map(str, dict.fromkeys(values)))
        for values in ((block.width for block in spec.blocks), (block.heads for block in spec.blocks))
    )
    yield "width, depth, heads", f"{widths}; {spec.depth}; {heads}"
    tokens = ", then ".join(str(height * width) for height, width in grids)
    yield "tokens", f"{tokens} patches, {spec.prefix} CLS or register tokens"
    if windowed := [i for i, block in enumerate(spec.blocks) if block.windowed]:
        yield "windowed blocks", ", ".join(map(str, windowed))


def describe_installation() -> tuple[Facts, list[str]]:
    """Versions and devices, and what is known to go wrong, a sentence each."""
    import torch

    found = {name: version_of(name) for name in (*PACKAGES, *OPENCV)}
    facts = [("python", platform.python_version()), ("platform", platform.platform())]
    facts += [(name, number) for name, number in found.items() if number]
    facts.append(("CPU", f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"))
    facts += [(f"  {name}", said) for name, said in _fast_paths()]
    for k in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(k)
        facts.append((f"cuda:{k}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"))
    problems = [f"{name} is not installed; install vpt again" for name in PACKAGES if not found[name]]
    cv2 = [name for name in OPENCV if found[name]]
    if len(cv2) > 1:
        problems.append(
            f"{' and '.join(cv2)} share the module cv2 and break each other; keep opencv-python-headless only"
        )
    return facts, problems


def _fast_paths() -> Iterable[tuple[str, str]]:
    """What this machine's default device makes of `precision: auto`, of attention and of large tensors."""
    import torch

    from vpt.backbones.pieces import is_half
    from vpt.machine.device import choose_device
    from vpt.machine.precision import HALF, autocast, choose_precision
    from vpt.machine.products import batches_by_onednn, has_amx, onednn_is_faster

    device = choose_device("auto")
    precision = choose_precision("auto", device)
    said = "products in half precision, sums in float32" if precision in HALF else "float32 throughout"
    yield "precision auto", f"{precision} on {device}: {said}"
    with autocast(precision, device):
        half = is_half(torch.empty(0, device=device))
    fused, pieces = "torch's fused kernel", "piece by piece, scores stay in the cache"
    single = device.type == "cpu" and precision == "32-true" and batches_by_onednn()
    yield "attention in training", f"{pieces} and are recomputed" if half or single else fused
    yield "attention of new scans", pieces if single or (half and not has_amx()) else fused
    if device.type == "cpu":
        kinds = "frozen weights and attention" if batches_by_onednn() else "frozen weights"
        yield "float32 products", f"oneDNN for {kinds}, else torch's default" if onednn_is_faster() else "torch's"
    if device.type == "cpu" and platform.system() == "Linux":
        wanted = {"THP_MEM_ALLOC_ENABLE": "1", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
        missing = [f"{name}={value}" for name, value in wanted.items() if value not in os.environ.get(name, "")]
        advice = f"for larger pages, which large tensors are made faster in, set {' '.join(missing)}"
        yield "memory", advice if missing else "large pages"


def two_columns(title: str, facts: Facts) -> Table:
    """For the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, Text(value))
    return table
