"""The peak of memory between two looks."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vpt.machine.memory as module
from vpt.backbones import load_backbone
from vpt.machine.memory import inference_batch, peak_memory, reset_peak, total_memory
from vpt.model import numbers_per_image

CPU = torch.device("cpu")
SIZE = 200_000_000


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="not Linux")
def test_the_peak_is_that_since_the_reset() -> None:
    reset_peak(CPU)
    before = peak_memory(CPU)
    held = torch.ones(SIZE // 4)
    del held  # a peak is of what was, too
    during = peak_memory(CPU)
    reset_peak(CPU)
    after = peak_memory(CPU)
    assert before is not None
    assert during is not None
    assert after is not None
    assert during - before == pytest.approx(SIZE, rel=0.1)
    assert during - after > 0.9 * SIZE


COUNTING = """
import resource, torch
from vpt.machine.memory import keeping_buffers

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(32_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

found = [pages()]
with keeping_buffers(torch.device("cpu")):
    pages()  # at first they are new, and glibc takes some more beside them
    found.append(pages())
print(*found)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
@pytest.mark.parametrize("chosen", [{}, {"MALLOC_TRIM_THRESHOLD_": "131072"}])
def test_freed_buffers_are_kept_inside(chosen: dict[str, str]) -> None:
    """By the pages that the system has to clear for 128 MB, taken and freed ten times; who chose otherwise, has."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTING], env=os.environ | chosen, capture_output=True, text=True, check=True
    )
    once = 128_000_000 // resource.getpagesize()
    before, inside = map(int, done.stdout.split())
    assert before > 8 * once
    assert inside > 8 * once if chosen else inside < 4 * once


def test_where_no_one_can_say(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise OSError

    monkeypatch.setattr(Path, "read_text", fail)
    monkeypatch.setattr(Path, "write_text", fail)
    reset_peak(CPU)
    assert peak_memory(CPU) is None


ALONE = """
import torch
from vpt.backbones import load_backbone
from vpt.machine.memory import peak_memory, reset_peak
from vpt.model import PER_TOKEN
backbone = load_backbone("vit_small_patch16_224", weights="random", image_size=224)
cpu = torch.device("cpu")
with torch.inference_mode():
    for count in (2, 64):  # first what libraries and weights take when they are used
        images = torch.zeros(count, 3, 224, 224)
        reset_peak(cpu)
        before = peak_memory(cpu)
        tokens = backbone.embed(images)
        for i in range(2):
            tokens = backbone.block(i, tokens, None)
        after = peak_memory(cpu)
print((after - before) / (4 * PER_TOKEN * 14**2 * backbone.spec.blocks[0].width * count))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="not Linux")
def test_what_is_reckoned_for_a_batch_is_about_what_it_takes() -> None:
    """An encoder's forward pass beside the formula, in a process whose memory has no holes yet."""
    done = subprocess.run([sys.executable, "-c", ALONE], check=True, capture_output=True, text=True)
    assert 0.2 < float(done.stdout) < 1.3


@pytest.mark.slow
def test_a_batch_is_as_large_as_the_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_backbone("sam_micro", weights="random").spec
    sizes = {}
    for gib in (1, 4, 16, 1000):
        monkeypatch.setattr(module, "total_memory", lambda device, gib=gib: gib * 2**30)
        sizes[gib] = inference_batch(numbers_per_image(spec, 256, classes=3), CPU)
        assert inference_batch(numbers_per_image(spec, 256), CPU) >= sizes[gib]
    assert 1 <= sizes[1] < sizes[4] < sizes[16] <= sizes[1000] == 32
    monkeypatch.setattr(module, "total_memory", lambda device: 2**20)
    assert inference_batch(numbers_per_image(spec, 256, classes=3), CPU) == 1


def test_a_containers_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = total_memory(CPU)
    assert machine > 2**30
    for limit, expected in ((2**30, 2**30), (None, machine), (2**60, machine)):
        monkeypatch.setattr("vpt.machine.cgroups.memory_limit", lambda limit=limit: limit)
        assert total_memory(CPU) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_of_a_gpu_its_tensors_count() -> None:
    device = torch.device("cuda")
    reset_peak(device)
    held = torch.ones(SIZE // 4, device=device)
    del held
    assert peak_memory(device) == pytest.approx(SIZE, rel=0.1)
