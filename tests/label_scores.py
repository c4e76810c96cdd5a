"""Scores of a label from its counts, and of two masks by themselves, for the tests of scores and reports."""

from __future__ import annotations

import math

import numpy as np

from vpt.scores.cases import LabelScores
from vpt.scores.lesions import OVERLAP, LesionScores, score_lesions
from vpt.scores.surfaces import SurfaceScores, place_distances, score_places, surfaces_of

NAN = math.nan


def scores(tp, fp, fn, hd95=1.0, nsd=0.5, assd=0.25):
    union = tp + fp + fn
    return LabelScores(
        dice=2 * tp / (union + tp) if union else NAN,
        iou=tp / union if union else NAN,
        hd95=hd95 if tp + fp and tp + fn else NAN,
        assd=assd if tp + fp and tp + fn else NAN,
        nsd=nsd if union else NAN,
        volume_pred_ml=(tp + fp) / 1000,
        volume_ref_ml=(tp + fn) / 1000,
        tp=tp,
        fp=fp,
        fn=fn,
        tn=100 - union,
    )


def surface_scores(predicted, true, spacing, tolerance=1.0, absent=NAN) -> SurfaceScores:
    """Of two masks (bool)."""
    return score_places(*_surfaces(predicted, true), spacing, tolerance, absent)


def surface_distances(first, second, spacing) -> tuple[np.ndarray, np.ndarray]:
    """Two masks (bool) -> distance of every surface voxel of each to the other's surface, mm."""
    return place_distances(*_surfaces(first, second), spacing)


def _surfaces(*masks):
    return [surfaces_of(mask, [1])[1] for mask in masks]


def lesions_of(predicted, true, overlap=OVERLAP) -> LesionScores:
    """Of two masks (bool), sizes in voxels."""
    voxel = (10.0,) * true.ndim  # of 1 ml
    return score_lesions(predicted, true, voxel, [1], overlap=overlap)[1]
