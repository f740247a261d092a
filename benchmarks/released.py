"""Memory and time of published sizes on a CPU: the passes behind a token bank, random weights.

    OMP_NUM_THREADS=1 python benchmarks/released.py [small base large huge giant]

Random weights cost what published ones cost. Each size is a process of its own, so that the peak
of its memory is its own; it builds the model as a checkpoint is loaded (one copy of the weights),
looks at a batch of four images of 224 x 224 pixels as a bank does, and at one of 448 x 448 as the
maps do. Time is that of the processor, which other jobs on the machine hardly change. Writes
benchmarks/results/released.md; sizes that are not named keep their rows.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

SIZES = {
    "small": "vit_small_patch14_reg4_dinov2.lvd142m",
    "base": "vit_base_patch14_reg4_dinov2.lvd142m",
    "large": "vit_large_patch14_reg4_dinov2.lvd142m",
    "huge": "deit3_huge_patch14_224.fb_in22k_ft_in1k",
    "giant": "vit_giant_patch14_reg4_dinov2.lvd142m",
}
BATCH = 4
RESULTS = Path(__file__).parent / "results" / "released.md"


def measure(size: str) -> dict[str, float]:
    """One size, in this process: seconds and the peak of its memory in GiB."""
    import timm
    import torch

    from registers.models.backbone import Architecture, Backbone

    with torch.device("meta"):
        vit = timm.create_model(SIZES[size], dynamic_img_size=True)
    state = {name: torch.empty(t.shape).normal_(std=0.02) for name, t in vit.state_dict().items()}
    vit.load_state_dict(state, assign=True)
    del state
    patch = vit.patch_embed.patch_size[0]
    blocks = vit.blocks
    architecture = Architecture(
        vit.embed_dim, len(blocks), blocks[0].attn.num_heads, patch, 518, vit.num_reg_tokens
    )
    backbone = Backbone(vit, architecture).eval().requires_grad_(False)

    began = time.process_time()
    backbone.observe(torch.randn(BATCH, 3, 224, 224))
    bank = (time.process_time() - began) / BATCH
    began = time.process_time()
    backbone.observe(torch.randn(1, 3, 448, 448))
    maps = time.process_time() - began
    return {
        "parameters": sum(p.numel() for p in vit.parameters()),
        "bank": bank,
        "maps": maps,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main(sizes: list[str]) -> None:
    for size in sizes:
        command = [sys.executable, __file__, "--one", size]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        print(size, row, flush=True)
        rows = RESULTS.read_text().splitlines() if RESULTS.is_file() else []
        kept = {line.split()[1]: line for line in rows if line.startswith("| ")}
        kept[size] = (
            f"| {size} | `{SIZES[size]}` | {row['parameters'] / 1e6:.0f} M | {row['peak']:.1f} GiB "
            f"| {row['bank']:.2f} | {row['maps']:.2f} |"
        )
        RESULTS.write_text(page([kept[name] for name in SIZES if name in kept]))


def page(rows: list[str]) -> str:
    """The table, with what it was measured on."""
    lines = [
        "# Published sizes on a CPU",
        "",
        f"`OMP_NUM_THREADS=1 python benchmarks/released.py` on an {platform.machine()} machine of "
        f"{os.cpu_count()} cores, {date.today()}; random weights, float32. Core-seconds are of the "
        "processor, on one core; other jobs ran beside.",
        "",
        "| size | timm | parameters | peak memory | core-s an image of 224 px | of 448 px |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2])))
    else:
        main(sys.argv[1:] or list(SIZES))
