"""Visual prompt tuning for vision and medical imaging.

    vpt.train("DATA", "runs/first")
    vpt.load("runs/first").segment("scan.nii.gz")
    vpt.evaluate("predictions", "references")

For a loop of your own: `wrap(timm.create_model(...), prompts="deep:10")`, or with heads for masks
`PromptedModel(backbone, DeepPrompts(spec, count=10), MaskHead(spec, classes=3))` with
`backbone = load_backbone("vit_micro")` and `spec = backbone.spec`. Many tasks on one encoder: `Bank`. Methods, heads,
controls and encoders of your own: `register_prompts`, `register_heads`, `register_tuning` and `register_backbones`, see
docs/extending.md.
"""

from functools import reduce
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str

    from vpt.backbones import load_backbone as load_backbone
    from vpt.backbones import register_backbones as register_backbones
    from vpt.engine.callbacks.base import Callback as Callback
    from vpt.engine.run import train as train
    from vpt.errors import VptError as VptError
    from vpt.heads import ClassifyHead as ClassifyHead
    from vpt.heads import MaskHead as MaskHead
    from vpt.heads import SamDecoderHead as SamDecoderHead
    from vpt.model import PromptedModel as PromptedModel
    from vpt.prompts import AdditivePrompts as AdditivePrompts
    from vpt.prompts import ConditionedPrompts as ConditionedPrompts
    from vpt.prompts import CrossPrompts as CrossPrompts
    from vpt.prompts import DeepPrompts as DeepPrompts
    from vpt.prompts import FourierPrompts as FourierPrompts
    from vpt.prompts import GatedPrompts as GatedPrompts
    from vpt.prompts import LowRankPrompts as LowRankPrompts
    from vpt.prompts import Prompts as Prompts
    from vpt.prompts import ShallowPrompts as ShallowPrompts
    from vpt.readers.shown import Segmentation as Segmentation
    from vpt.readers.shown import SegmentedImage as SegmentedImage
    from vpt.report.classification import ClassReport as ClassReport
    from vpt.report.segmentation import Report as Report
    from vpt.sections import HEADS, PROMPTS, TUNINGS
    from vpt.use.bank import Bank as Bank
    from vpt.use.classifier import Classifier as Classifier
    from vpt.use.evaluation.scoring import evaluate as evaluate
    from vpt.use.load import load as load
    from vpt.use.segmenter import Segmenter as Segmenter
    from vpt.wrapping import wrap as wrap

    register_heads = HEADS.register
    register_prompts = PROMPTS.register
    register_tuning = TUNINGS.register

_HOMES = {
    "Callback": "vpt.engine.callbacks.base",
    "ClassReport": "vpt.report.classification",
    "Classifier": "vpt.use.classifier",
    "ClassifyHead": "vpt.heads",
    "AdditivePrompts": "vpt.prompts",
    "Bank": "vpt.use.bank",
    "ConditionedPrompts": "vpt.prompts",
    "CrossPrompts": "vpt.prompts",
    "DeepPrompts": "vpt.prompts",
    "FourierPrompts": "vpt.prompts",
    "GatedPrompts": "vpt.prompts",
    "LowRankPrompts": "vpt.prompts",
    "MaskHead": "vpt.heads",
    "PromptedModel": "vpt.model",
    "Prompts": "vpt.prompts",
    "Report": "vpt.report.segmentation",
    "SamDecoderHead": "vpt.heads",
    "Segmentation": "vpt.readers.shown",
    "SegmentedImage": "vpt.readers.shown",
    "Segmenter": "vpt.use.segmenter",
    "ShallowPrompts": "vpt.prompts",
    "VptError": "vpt.errors",
    "evaluate": "vpt.use.evaluation.scoring",
    "load": "vpt.use.load",
    "load_backbone": "vpt.backbones",
    "register_backbones": "vpt.backbones",
    "register_heads": "vpt.sections",
    "register_prompts": "vpt.sections",
    "register_tuning": "vpt.sections",
    "train": "vpt.engine.run",
    "wrap": "vpt.wrapping",
}
# Public names that are called otherwise where they live.
_PATHS = {
    "register_heads": "HEADS.register",
    "register_prompts": "PROMPTS.register",
    "register_tuning": "TUNINGS.register",
}

__all__ = sorted(_HOMES)


def __dir__() -> list[str]:
    """The public names, without submodules that happen to be imported."""
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    """Names are fetched when first used, so that `import vpt` and `vpt --help` load neither torch nor MONAI."""
    if name == "__version__":
        from importlib.metadata import version

        return version("vpt")
    if name not in _HOMES:
        raise AttributeError(f"module 'vpt' has no attribute {name!r}; it has {', '.join(__all__)}")
    found: Any = import_module(_HOMES[name])
    return reduce(getattr, _PATHS.get(name, name).split("."), found)
