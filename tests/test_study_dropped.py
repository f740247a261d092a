"""Stochastic depth in the study's nets: whole updates of a scene, in training alone."""

import pytest
import torch

from registers.settings.errors import ConfigError
from registers.study.regime import TokenRegime, regime_of
from registers.study.tokens_net import TokenNet
from registers.study.tokens_world import draw_tokens


def some(count: int = 200, **settings):
    regime = TokenRegime(**settings)
    return regime, draw_tokens(regime, count, torch.Generator().manual_seed(2))


def net(registers: int = 0, **settings) -> TokenNet:
    torch.manual_seed(0)
    return TokenNet(TokenRegime(**settings), registers)


def test_drop_path_leaves_whole_updates_out_in_training_alone():
    """A block's update of a scene is either missing or divided by the share that is kept."""
    one = net(depth=1, attends_from=0, mlps=0, drop_path=0.25)
    images = some(400)[1].images
    with torch.no_grad():
        whole = one.eval()(images)
        again = one(images)
        torch.manual_seed(0)
        dropped = one.train()(images)
    assert torch.equal(whole.layers[0], again.layers[0])
    update = whole.layers[0] - whole.start
    got = dropped.layers[0] - dropped.start
    kept = got.flatten(1).norm(dim=1) > 0
    assert torch.allclose(got[kept], update[kept] / 0.75, atol=1e-5)
    assert 0.2 < float((~kept).float().mean()) < 0.3


@pytest.mark.parametrize("dropped", ["attention", "mlps"])
def test_one_part_alone_is_dropped(dropped):
    """Where every update of a part but one in a thousand is left out, the block is the other."""
    one = net(depth=1, attends_from=0, drop_path=0.999, dropped=dropped)
    images = some(8)[1].images
    block = one.blocks[0]
    with torch.no_grad():
        torch.manual_seed(0)
        got = one.train()(images)
        attended = block.attn(block.norm1(got.start))[0]
        other = block.mlp(got.start) if dropped == "attention" else attended
    assert torch.allclose(got.layers[0], got.start + other, atol=1e-6)


@pytest.mark.parametrize("change", [dict(drop_path=1.0), dict(dropped="mlps")])
def test_drop_path_that_cannot_be(change):
    with pytest.raises(ConfigError, match="drop"):
        regime_of(dict(world="tokens") | change, "v.change")
