"""What the trainings of `vpt compare` found: scores per method and seed, and differences on the same patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vpt.scores.bootstrap import RESAMPLES, SEED, draws, percentiles
from vpt.sealed import read_sealed


@dataclass(frozen=True)
class Result:
    """What is known of a method: (seeds, cases) of scores, the records of its finals, and of every training.

    cases: those with a score in all methods, so that these are comparable; note: what failed, or is missing.
    """

    name: str
    shown: str
    cases: tuple[str, ...]
    scores: np.ndarray
    finals: tuple[dict[str, Any], ...]
    every: tuple[dict[str, Any], ...]
    note: str = ""

    @property
    def mean(self) -> float:
        return float(self.scores.mean())


def read_results(out: Path, shown: Mapping[str, str], seeds: int) -> list[Result]:
    """The results of the named methods (name -> name in tables) in a comparison's folder, the best first.

    Seeds from `seeds` on, of an earlier comparison that had more, are left out.
    """
    every = {name: tuple(read_sealed(path) for path in sorted((out / name).glob("*/result.json"))) for name in shown}
    finals = {
        name: tuple(sorted((one for one in all_ if one["seed"] < seeds and one.get("tested")), key=_seed))
        for name, all_ in every.items()
    }
    tested = [set(one["tested"]) for each in finals.values() for one in each]
    cases = tuple(sorted(set.intersection(*tested))) if tested else ()
    results = []
    for name, words in shown.items():
        done = finals[name] if cases else ()
        scores = np.array([[one["tested"][case] for case in cases] for one in done]).reshape(len(done), len(cases))
        results.append(Result(name, words, cases, scores, done, every[name], _note(every[name], len(done), seeds)))
    return sorted(results, key=lambda result: -result.mean if result.finals else 1.0)


def _seed(record: Mapping[str, Any]) -> int:
    return int(record["seed"])


def _note(every: Sequence[Mapping[str, Any]], done: int, seeds: int) -> str:
    failed = [one["failed"] for one in every if "failed" in one]
    missing = f"{done} of {seeds} seeds" if done < seeds else ""
    without = "no test case has a score" if not done and any("tested" in one for one in every) else ""
    why = f"{len(failed)} of {len(every)} trainings failed (--retry-failed tries again): {failed[0]}" if failed else ""
    return "; ".join(filter(None, [missing, without, why]))


def measure(results: Sequence[Result], control: str | None = None) -> list[dict[str, Any] | None]:
    """The numbers of each method, None where it has no final: score, costs, and differences to the best, the first.

    control: the method without prompts, the head alone, from which differences are measured as well.
    """
    drawn = resampled(results)
    head = next((result for result in results if result.name == control and result.finals), None)
    return [_numbers(result, results[0], head, drawn) if result.finals else None for result in results]


def _numbers(result: Result, best: Result, control: Result | None, drawn: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """See `measure`: shares of 1, seconds, bytes; None where there is no interval."""

    def interval(values: np.ndarray) -> list[float] | None:
        return [*percentiles(values)] if np.isfinite(values).all() else None

    first, memory = result.finals[0], [one["peak_memory"] for one in result.finals if one["peak_memory"]]
    return {
        "score": result.mean,
        "interval": interval(drawn[result.name]),
        "seeds": [float(seed.mean()) for seed in result.scores],
        "cases": len(result.cases),
        "minus_the_best": result.mean - best.mean,
        "interval_of_that": interval(drawn[result.name] - drawn[best.name]),
        "minus_head_only": result.mean - control.mean if control else None,
        "interval_of_minus_head_only": interval(drawn[result.name] - drawn[control.name]) if control else None,
        "parameters": first["counts"],
        "artifact_bytes": first["artifact_bytes"],
        "peak_memory_bytes": max(memory) if memory else None,
        "seconds_per_step": min(one["seconds_per_step"] for one in result.finals),
        "seconds_per_run": min(one["seconds"] for one in result.finals),
        "seconds_in_all": sum(one.get("seconds", 0) for one in result.every),
        "chosen": first["settings"],
    }


def resampled(results: Sequence[Result], resamples: int = RESAMPLES) -> dict[str, np.ndarray]:
    """Name -> mean score in each of the resamples, the same patients in all methods, so that differences are paired.

    Patients are drawn with replacement; and of each method, seeds. NaN where all cases are one patient's.
    """
    done = [result for result in results if result.finals]
    if not done:
        return {}
    patients = done[0].finals[0]["patients"]
    names, owner = np.unique([patients[case] for case in done[0].cases], return_inverse=True)
    if len(names) < 2:
        return {result.name: np.full(resamples, np.nan) for result in done}
    sums = np.zeros((len(names), sum(len(result.scores) for result in done)))
    np.add.at(sums, owner, np.concatenate([result.scores for result in done]).T)  # (patients, seeds of all methods)
    drawn = _resampled_sums(np.column_stack([sums, np.bincount(owner)]), resamples)
    means = drawn[:, :-1] / drawn[:, -1:]
    rng, first, found = np.random.default_rng(SEED + 1), 0, {}
    for result in done:
        count = len(result.scores)
        seeds = np.concatenate([*draws(rng, count, resamples)]) / count
        found[result.name] = (seeds * means[:, first : first + count]).sum(1)
        first += count
    return found


def _resampled_sums(sums: np.ndarray, resamples: int, at_once: int | None = 100) -> np.ndarray:
    """(patients, K) -> (resamples, K): sums over patients drawn with replacement, some at a time for memory."""
    chunks = draws(np.random.default_rng(SEED), len(sums), resamples, at_once)
    return np.concatenate([chunk.astype(float) @ sums for chunk in chunks])
