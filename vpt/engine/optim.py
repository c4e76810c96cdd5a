"""Optimiser and schedule."""

from __future__ import annotations

import math

import torch

from vpt.model import PromptedModel


def build_optimizer(
    model: PromptedModel,
    *,
    lr: float,
    prompt_lr: float,
    backbone_lr: float,
    weight_decay: float,
    prompt_weight_decay: float = 0.0,
    method: str = "adamw",
    momentum: float = 0.9,
) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov-free momentum, over what trains, each part with its own peak rate.

    Of head and backbone only matrices and kernels decay; prompts have a decay of their own. Where channels are mixed,
    that trains with the head's rate and does not decay, since it starts from a mean and not from zero. A trigger is
    learned as prompts are.
    `backbone_lr` goes to all that tuning trains or adds in the backbone. Every method has one to start from
    (`Choice.own_rate`); search around it on the validation split: full, partial 1e-5 to 5e-4; bias 1e-4 to 1e-2;
    ssf 1e-3 to 1e-2; adapter and lora 5e-4 to 5e-3.
    """
    rates = {"prompts": prompt_lr, "head": lr, "backbone": backbone_lr}
    groups = []
    for part, rate in rates.items():
        trained = [p for p in getattr(model, part).parameters() if p.requires_grad]
        for matrices in (True, False):
            chosen = [p for p in trained if (p.ndim > 1) == matrices]
            if chosen:
                decay = prompt_weight_decay if part == "prompts" else weight_decay if matrices else 0.0
                groups.append({"params": chosen, "lr": rate, "peak": rate, "weight_decay": decay})
    if model.mixing is not None:
        groups.append({"params": [model.mixing.weight], "lr": lr, "peak": lr, "weight_decay": 0.0})
    if model.trigger is not None:
        own = {"lr": prompt_lr, "peak": prompt_lr, "weight_decay": prompt_weight_decay}
        groups.append({"params": [model.trigger.offset], **own})
    return torch.optim.SGD(groups, lr=lr, momentum=momentum) if method == "sgd" else torch.optim.AdamW(groups, lr=lr)


def schedule(step: int, steps: int, warmup: float, floor: float = 0.01) -> float:
    """Factor of the peak rate at `step` of `steps`: a linear rise that starts above zero, then cosine to `floor`."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def schedule_of_epochs(epoch: int, epochs: int, warmup: float) -> float:
    """Factor of the peak rate in `epoch` of `epochs`: a linear rise from 0, then cosine to 0.

    As in the code of VPT (Jia et al., ECCV 2022): with any warm-up the rate is 0 in the whole first epoch.
    """
    rise = round(warmup * epochs)
    if epoch < rise:
        return epoch / rise
    return 0.5 * (1 + math.cos(math.pi * (epoch - rise) / max(1, epochs - rise)))


def schedule_without_end(step: int, steps: int, warmup: float) -> float:
    """Factor of the peak rate at `step`, `steps` an epoch: a linear rise in a share of the first epoch, then 1.

    It does not ask how many epochs there will be, so that a run may be given more of them later.
    """
    return min(1.0, (step + 1) / max(1, round(warmup * steps)))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
