"""Fig. 12: the formula against timm's parameters, torch's own count and values derived by hand."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from registers.exact import cost
from registers.exact.cost import COUNTS, PAPER, embedding_macs, macs, parameters
from registers.models.backbone import Architecture, build
from registers.settings.load import load_settings

SMALL = Architecture(width=24, depth=3, heads=2, patch=4, image=16, registers=2)
# per cent, derived by hand from L (12 N D^2 + 2 N^2 D) for N = 257 + R and 197 + R
INCREASES = {
    "ViT-L/14@224": [0, 0.40, 0.81, 1.62, 3.24, 6.49],
    "ViT-B/16@224": [0, 0.53, 1.06, 2.12, 4.23, 8.48],
}


@pytest.mark.parametrize("model", INCREASES)
def test_increase_at_the_papers_sizes(model):
    a = PAPER[model]
    increases = [100 * (macs(a, r) / macs(a, 0) - 1) for r in COUNTS]
    assert increases == pytest.approx(INCREASES[model], abs=0.006)
    n, d = (257, 1024) if "L/14" in model else (197, 768)
    assert macs(a, 4) == a.depth * (12 * (n + 4) * d**2 + 2 * (n + 4) ** 2 * d)


def test_sixteen_registers_are_few_parameters():
    a = PAPER["ViT-L/14@224"]
    assert parameters(a, 16) - parameters(a, 0) == 16 * 1024
    assert parameters(a, 16) / parameters(a, 0) - 1 == pytest.approx(5.4e-5, abs=1e-6)


@pytest.mark.parametrize(
    "more", [{}, {"ffn": "swiglu"}, {"layer_scale": 1e-5}, {"pre_norm": True}, {"registers": 0}]
)
def test_against_timm_and_torchs_flop_counter(more):
    a = Architecture(**{**vars(SMALL), **more})
    backbone = build(a).eval()
    assert parameters(a) == sum(p.numel() for p in backbone.parameters())
    for block in backbone.vit.blocks:
        block.attn.fused_attn = False  # the counter does not see inside fused attention
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone(torch.zeros(1, 3, 16, 16))
    assert counter.get_total_flops() == 2 * (macs(a) + embedding_macs(a))


def test_rows():
    settings = load_settings({"scale": "laptop", "registers": [0, 3]})
    rows = cost.measure(None, [], settings).rows
    models = {r.data for r in rows}
    assert set(PAPER) < models
    assert {(r.question, r.coordinate, r.token) for r in rows} == {("cost", "registers", "")}
    values = {(r.data, r.metric, r.at): r.value for r in rows}
    assert values["ViT-L/14@224", "macs_increase", 4] == pytest.approx(0.0162, abs=1e-4)
    assert values["ViT-B/16@224", "params_increase", 0] == 0
    assert all((name, "macs", 3) in values for name in models)
