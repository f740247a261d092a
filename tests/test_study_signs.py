"""Signs of a training: of the right tokens, heads, queries and blocks."""

import pytest
import torch
from torch.nn import functional as F

from registers.models.sequence import split_tokens
from registers.study.regime import TokenRegime
from registers.study.signs import attention_signs, norm_signs, told, watch
from registers.study.tokens_net import TokenNet
from registers.study.tokens_world import draw_tokens

AREA = dict(blanks=4, blanks_at="area")
FRONT = 3  # [CLS] and two registers


def some(count: int, registers: int = 2, **settings):
    regime = TokenRegime(**AREA | settings)
    torch.manual_seed(0)
    net = TokenNet(regime, registers).eval()
    return net, draw_tokens(regime, count, torch.Generator().manual_seed(2))


def test_norms_are_compared_with_those_of_other_patches():
    """In units of 2: most patches have norm 1, blanks 3, 50 and twice 4, ten others 70."""
    net, batch = some(100, summary="cls")
    size = torch.ones(100, 25)
    size[batch.redundant] = torch.tensor([3.0, 4.0, 4.0, 50.0]).repeat(100)
    others = (~batch.redundant).nonzero()[:10]
    size[others[:, 0], others[:, 1]] = 70.0
    front = torch.tensor([6.0, 8.0, 2.0]).expand(100, -1)
    x = 2 * torch.cat([front, size], 1)[..., None] * F.normalize(torch.ones(48), dim=0)
    signs = norm_signs(net, split_tokens(x, 2, cls=True), batch.redundant)
    assert signs["redundant_over_others"] == pytest.approx(4.0)
    assert signs["cls_over_median"] == pytest.approx(6.0)
    assert signs["registers_over_median"] == pytest.approx(8.0)
    # of 2500 patches those above the 25th highest, or as high: all of 50 and of 70
    assert signs["top_percent_redundant"] == pytest.approx(100 / 110)


def looks(batch) -> torch.Tensor:
    """Weights of two heads, (B, 2, N, N). Blanks look at [CLS]. Of the other patches, the first
    head gives half to the first blank, the second all to the first register."""
    count = len(batch.redundant)
    weights = torch.zeros(count, 2, FRONT + 25, FRONT + 25)
    queries = torch.cat([torch.zeros(count, FRONT, dtype=torch.bool), ~batch.redundant], 1)
    first = FRONT + batch.redundant.int().argmax(1)
    for scene in range(count):
        weights[scene, 0, queries[scene], first[scene]] = 0.5
        weights[scene, 1, queries[scene], 1] = 1.0
        weights[scene, :, FRONT:, 0] = (~queries[scene, FRONT:]).float()
    return weights


def test_attention_is_a_mean_over_queries_of_what_each_token_receives():
    net, batch = some(6, summary="cls")
    before = torch.ones(6, 25)
    before[torch.arange(6), batch.redundant.int().argmax(1)] = 4.0
    signs = attention_signs(net, looks(batch), 1, batch.redundant, before)
    share = 21 / 28  # of the queries
    assert signs["attention_of_a_head"] == pytest.approx(share / 2)
    assert signs["attention_on_a_patch"] == pytest.approx(share / 4)
    assert signs["attention_on_registers"] == pytest.approx(share / 2)
    assert signs["attention_on_cls"] == pytest.approx(4 / 28)
    assert signs["head_on_redundant"] == pytest.approx(0.5)
    assert signs["head_on_registers"] == pytest.approx(1.0)
    assert signs["sink_redundant"] == 1.0 and signs["sink_over_median"] == 4.0
    assert signs["cls_on_redundant"] == signs["cls_on_registers"] == 0.0


def test_the_watch_measures_a_sink_before_the_block_that_looks_at_it(monkeypatch):
    """The sink is 5 at the start, 7 after block 1, 2 after block 2, 1 after block 3; others are 1.
    Labels are told by blanks alone, and after the last block alone."""
    net, batch = some(600, summary="cls", holders=8)
    unit = F.normalize(torch.ones(48), dim=0)
    sizes = torch.ones(4, 600, FRONT + 25)
    rows, first = torch.arange(600), FRONT + batch.redundant.int().argmax(1)
    for layer, norm in enumerate((5.0, 7.0, 2.0, 1.0)):
        sizes[layer, rows, first] = norm
    x = sizes[..., None] * unit
    code = F.one_hot(batch.label, 48).float()
    x[3, :, FRONT:] += 0.1 * batch.redundant[..., None] * code[:, None]
    x[3, :, FRONT:] += 0.1 * batch.marked[..., None] * code[:, None]
    x += 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    seen = net(batch.images)._replace(
        start=x[0, :, FRONT:], layers=list(x[1:]), attention=3 * [looks(batch)]
    )
    monkeypatch.setattr(net, "observe", lambda images: seen)
    row = watch(net, batch)
    norms = [row[f"layer{layer}/sink_over_median"] for layer in (1, 2, 3)]
    assert norms == pytest.approx([5, 7, 2], rel=0.05)
    assert row["told_by_redundant"] > 0.9 and row["told_by_others"] < 0.3
    assert row["redundant"] == pytest.approx(4 / 25)
    assert row["redundant_of_scene"] > 0


def test_the_weight_of_the_query_is_told_by_what_it_falls_on(monkeypatch):
    net, batch = some(40, triggers=0.5)
    where = [batch.redundant, batch.marked, batch.triggered & ~batch.marked]
    weights = torch.cat([torch.full((40, 2), 0.05), 0.1 * where[0] / 4 + 0.2 * where[1]], 1)
    weights[:, 2:] += 0.6 * where[2] / where[2].sum(1, keepdim=True)
    assert (batch.triggered & batch.marked).any()
    monkeypatch.setattr(net, "pool", lambda *_: weights)
    row = watch(net, batch)
    shares = [row[f"pool_on_{name}"] for name in ("registers", "redundant", "marked", "triggered")]
    assert shares == pytest.approx([0.1, 0.1, 0.2, 0.6])


def test_a_label_is_told_of_the_half_that_was_not_fitted():
    _, batch = some(400, 0)
    shown = batch.label.clone()
    shown[200:] = (shown[200:] + 1) % 8  # another code in the second half
    x = F.one_hot(shown, 48)[:, None] + 0.1 * torch.randn(
        400, 25, 48, generator=torch.Generator().manual_seed(0)
    )
    assert told(x, batch.redundant, batch.labels) < 0.02
