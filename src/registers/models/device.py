"""Which accelerator a job uses."""

import torch

from registers.settings.errors import ConfigError


def choose_device(wanted: str) -> str:
    """ "cpu", "cuda" or "mps": the one that is wanted, or for "auto" the best that there is.

    Raises ConfigError where this machine does not have it.
    """
    usable = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    names = [name for name in usable if usable[name]]
    if wanted == "auto":
        return names[0]
    if wanted not in names:
        raise ConfigError(
            f"device = {wanted}: not on this machine; must be one of auto, {', '.join(names)}"
        )
    return wanted
