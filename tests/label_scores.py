"""Scores of a label from its counts, for the tests of reports and comparisons."""

from __future__ import annotations

import math

from vpt.scores.cases import LabelScores

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
