"""Schedules over steps that recipes and evaluations share."""

import math


def cosine(
    step: int, steps: int, base: float, final: float, warmup: int = 0, start: float = 0.0
) -> float:
    """Linear from start to base over `warmup` steps, then a half cosine towards final.

    Both ends of the warm-up are included; `final` from `steps` on. The same numbers as
    CosineScheduler (dinov2/utils/utils.py) and cosine_scheduler (dino/utils.py).
    """
    if step >= steps:
        return final
    if step < warmup:
        return start + (base - start) * step / max(warmup - 1, 1)
    return final + (base - final) * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
