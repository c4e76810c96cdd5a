"""What is scored of a case, and how: names of scores, what is counted, the rules that a report names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vpt.scores.cases import CaseScores, Empty, LabelScores
from vpt.scores.lesions import OVERLAP, LesionScores
from vpt.versions import version_of

# nnU-Net's names, and ours after them -> the attribute of LabelScores.
SCORES = {
    "Dice": "dice",
    "IoU": "iou",
    "precision": "precision",
    "recall": "recall",
    "HD95": "hd95",
    "ASSD": "assd",
    "NSD": "nsd",
    "volume_pred_ml": "volume_pred_ml",
    "volume_ref_ml": "volume_ref_ml",
    "volume_error_ml": "volume_error_ml",
    "TP": "tp",
    "FP": "fp",
    "FN": "fn",
    "TN": "tn",
    "n_pred": "n_pred",
    "n_ref": "n_ref",
}
VOLUMES = ("volume_pred_ml", "volume_ref_ml", "volume_error_ml")  # of scans; areas of images are n_pred and n_ref
WITH_INTERVALS = ("Dice", "IoU", "precision", "recall", "HD95", "ASSD", "NSD")

# How often, over cases, something happened that a mean alone would hide.
COUNTS: dict[str, Callable[[LabelScores], bool]] = {
    "both_empty": lambda score: score.n_pred == 0 and score.n_ref == 0,
    "false_positives": lambda score: score.n_pred > 0 and score.n_ref == 0,
    "missed": lambda score: score.n_pred == 0 and score.n_ref > 0,
    "hd95_undefined": lambda score: (score.n_pred == 0) != (score.n_ref == 0),
}


@dataclass(frozen=True)
class CaseResult:
    """One case: its name, where its volumes came from, its scores per label, and lesions of labels that have them."""

    name: str
    prediction_file: str
    reference_file: str
    scores: CaseScores
    lesions: Mapping[int, LesionScores] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """How the scores were made; two reports with equal settings can be compared.

    Distances are in `unit`. tolerances: of NSD, by label, where it is not `tolerance`; lesions: the labels that were
    looked at lesion by lesion, matched at an IoU of `lesion_overlap`.
    """

    title: str = "Evaluation"
    empty: Empty = "nan"
    tolerance: float = 1.0
    distances: bool = True
    unit: Literal["mm", "px"] = "mm"
    tolerances: Mapping[int, float] = field(default_factory=dict)
    lesions: tuple[int, ...] = ()
    lesion_overlap: float = OVERLAP

    def tolerance_of(self, label: int) -> float:
        return self.tolerances.get(label, self.tolerance)

    def to_dict(self) -> dict[str, Any]:
        vpt = f"vpt {version_of('vpt') or 'unknown'}"
        ways = {
            "HD95": f"{vpt}, percentile 95 of surface voxels, larger of both directions, {self.unit}",
            "ASSD": f"{vpt}, mean over the surface voxels of both, {self.unit}",
            "NSD": f"{vpt}, tolerance {self.tolerance:g} {self.unit}, surface voxels counted",
        }
        own = {str(label): distance for label, distance in self.tolerances.items()}
        matched = f"connected components (26 or 8 neighbours), one to one, IoU of {self.lesion_overlap:g} or more"
        return {
            "title": self.title,
            "empty": self.empty,
            f"tolerance_{self.unit}": self.tolerance,
            **({f"tolerances_{self.unit}": own} if own else {}),
            **{name: way if self.distances else "not computed" for name, way in ways.items()},
            **({"lesions": matched, "lesion_overlap": self.lesion_overlap} if self.lesions else {}),
            "mean": "per label over cases without undefined ones, then over labels",
            "vpt": version_of("vpt") or "unknown",
        }
