"""What a training runs on: device, precision and processes, through Lightning Fabric."""

import os
from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from lightning_fabric.strategies import DDPStrategy

from registers.models.device import choose_device
from registers.settings.run import Settings


class Autocast(MixedPrecision):
    """torch.autocast to bfloat16, and nothing else.

    Fabric's own plugin also rounds the inputs of a step to bfloat16. Images must stay float32: MAE
    predicts their pixels, each patch divided by its own deviation.
    """

    def __init__(self, device: str) -> None:
        super().__init__("bf16-mixed", device)

    def convert_input(self, data: Any) -> Any:
        return data


def launch(settings: Settings) -> Fabric:
    """Take the settings' device and precision. Under torchrun every process takes its place.

    Precision "auto" is bfloat16 with float32 weights on CUDA, float32 elsewhere.
    """
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    total = int(os.environ.get("WORLD_SIZE", "1"))
    device = choose_device(settings.device)
    is_half = settings.precision == "bf16-mixed"
    if settings.precision == "auto":
        is_half = device == "cuda"
    # find_unused: a batch without masked images leaves the mask token without a gradient
    strategy = DDPStrategy(find_unused_parameters=True) if total > 1 else "auto"
    fabric = Fabric(
        accelerator=device,
        devices=local,
        num_nodes=max(1, total // local),
        strategy=strategy,
        precision=None if is_half else "32-true",
        plugins=[Autocast(device)] if is_half else None,
    )
    fabric.launch()
    return fabric
