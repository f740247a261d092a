"""Which accelerator a job uses."""

import torch

from registers.settings.errors import ConfigError


def choose_device(wanted: str) -> str:
    """ "cpu", "cuda" or "mps": what was asked for, or for "auto" the best there is. Raises ConfigError if it is not there."""
    there = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    if wanted == "auto":
        return next(name for name, has in there.items() if has())
    if not there[wanted]():
        raise ConfigError(
            f"device = {wanted}: not on this machine; allowed are auto, {', '.join(n for n, has in there.items() if has())}"
        )
    return wanted
