"""What was measured, a JSON per machine in `benchmarks/results/`: its facts, then section -> case -> numbers."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).parent / "results"
# glibc then gives no buffer back to the system and takes none by mmap: large buffers page-fault once, not every time.
MENDED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**36), "MALLOC_TOP_PAD_": str(2**26)}
# every large buffer is a mapping of its own, so no holes are left between them; a step takes twice as long then
WITHOUT_HOLES = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}


def machine_name() -> str:
    """Such as `intel-xeon-processor-2-cores`; `amd-epyc-family-26-2-cores`, since only the family tells AMD's apart."""
    model = re.sub(r"\((R|TM|C)\)", " ", _cpu(), flags=re.IGNORECASE)
    family = re.search(r"family \d+", _kind()) if "AMD" in model else None
    name = " ".join(filter(None, [model, family and family[0], f"{os.cpu_count()} cores"]))
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def machine() -> dict[str, Any]:
    able = getattr(torch.cpu, "get_capabilities", dict)()
    blas = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": f"{_cpu()}{_kind()}",
        "cores": os.cpu_count(),
        "memory, GiB": round(memory / 2**30),
        "bfloat16": [name for name in ("avx512_bf16", "amx_bf16") if able.get(name)],
        "float32 matrix products": f"{blas[1] if blas else 'unknown'} (torch's default)",
        "bfloat16 matrix products": "oneDNN" if torch.backends.mkldnn.is_available() else "torch",
        "libc": " ".join(platform.libc_ver()),
        "transparent huge pages": _chosen(pages.read_text()) if pages.exists() else "unknown",
        "torch": torch.__version__,
    }


def read(name: str) -> dict[str, Any]:
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {"machine": machine(), "sections": {}}


def save(name: str, section: str, case: str, found: Any) -> None:
    """Put the numbers of one case in their place; the others stay."""
    results = read(name) | {"machine": machine()}
    results["sections"].setdefault(section, {})[case] = _rounded(found)
    FOLDER.mkdir(exist_ok=True)
    part = FOLDER / f"{name}.json.part"
    part.write_text(json.dumps(results, indent=1) + "\n")
    part.replace(FOLDER / f"{name}.json")


def allocator() -> str:
    """The settings of the C library's allocator in this process."""
    names = ("GLIBC_TUNABLES", "THP_MEM_ALLOC_ENABLE", "LD_PRELOAD")
    found = [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith("MALLOC_") or k in names]
    return " ".join(found) or "default"


def commit_of() -> str:
    """Short, with `-dirty` where the package or these scripts differ from it; results do not count."""
    with suppress(OSError, subprocess.CalledProcessError):
        changed = _git("status", "--porcelain", "--", "../vpt", "*.py")
        return _git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
    return "unknown"


def _git(*words: str) -> str:
    command = ["git", "-C", str(FOLDER.parent), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def load_of() -> float:
    """Processes that ran or waited in the last minute; what else the machine did while it was measured."""
    with suppress(OSError):
        return round(os.getloadavg()[0], 2)
    return float("nan")


def _cpu() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith("model name")).partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _kind() -> str:
    """Family and model, since a hypervisor hides the name: ` (family 25, model 17)`; nothing where that is unknown."""
    with suppress(OSError, AttributeError):
        text = Path("/proc/cpuinfo").read_text()
        family, model = (re.search(rf"^{key}\s*: (\d+)", text, re.MULTILINE)[1] for key in ("cpu family", "model"))
        return f" (family {family}, model {model})"
    return ""


def _chosen(options: str) -> str:
    """'always [madvise] never' -> 'madvise'."""
    found = re.search(r"\[(\w+)\]", options)
    return found[1] if found else options.strip()


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if not isinstance(value, float):
        return value
    return None if value != value else float(f"{value:.6g}")
