"""What patches look up in registers is found where it was planted, and can be levelled."""

import pytest
import torch

from registers.study.lookup import answers, explained, lookup, read_from_registers, replaced
from registers.study.regime import TokenRegime
from registers.study.tokens_net import TokenAttention, TokenNet
from registers.study.tokens_world import NOTHING, TokenScenes, codebook, draw_tokens


def some(count: int, **settings) -> TokenScenes:
    return draw_tokens(TokenRegime(**settings), count, torch.Generator().manual_seed(2))


def net(registers: int = 0, **settings) -> TokenNet:
    torch.manual_seed(0)
    return TokenNet(TokenRegime(**settings), registers)


@pytest.mark.parametrize("summary", ["query", "cls"])
@pytest.mark.parametrize("see", [True, False])
def test_patches_may_be_kept_from_looking_at_registers(summary, see):
    one = net(3, summary=summary, patches_see_registers=see)
    images = some(4).images
    hidden = torch.zeros(4, 25, dtype=torch.bool)
    hidden[:, 7] = True
    with torch.no_grad():
        before = [one(images), one(images, hidden)]
        one.reg_token.add_(torch.randn(3, 48))
        after = [one(images), one(images, hidden)]
        moved = images.clone()
        moved[:, 3] += 1.0
        other = one(moved)
    unmoved = not see and summary == "query"  # [CLS], which patches see, looks at registers
    for seen, again in zip(before, after, strict=True):
        assert torch.allclose(seen.last.patches, again.last.patches, atol=1e-6) == unmoved
    assert not torch.allclose(before[0].last.patches, before[1].last.patches, atol=1e-3)
    if summary == "cls":
        assert not torch.allclose(before[0].last.cls, after[0].last.cls, atol=1e-3)
    assert not torch.allclose(after[0].last.registers, other.last.registers, atol=1e-3)
    weights = after[0].attention[-1]
    front = weights.shape[-1] - 25
    assert bool((weights[:, :, front:, front - 3 : front] == 0).all()) == (not see)


def test_what_is_read_from_some_tokens_adds_up_to_the_update():
    attention = TokenAttention(TokenRegime(biases=True))
    torch.nn.init.normal_(attention.proj.bias)
    x = torch.randn(2, 9, 48)
    with torch.no_grad():
        update, weights = attention(x)
        parts = [attention.read(x, weights, slice(*ends)) for ends in ((0, 3), (3, 9))]
    assert torch.allclose(sum(parts) + attention.proj.bias, update, atol=1e-5)


def test_the_share_that_groups_explain():
    generator = torch.Generator().manual_seed(0)
    group = torch.randint(10, (4000,), generator=generator)
    table = torch.randn(10, 6, generator=generator)
    noise = torch.randn(4000, 6, generator=generator)
    assert explained(table[group] + 5.0, group) == pytest.approx(1.0, abs=1e-5)
    assert explained(noise, group) < 0.01
    spread = table - table[group].mean(0)
    half = float((spread[group] ** 2).mean() ** 0.5) * noise
    assert explained(table[group] + half, group) == pytest.approx(0.5, abs=0.05)


GAIN = 3.0  # with which a planted table is written


def planted(scale: float = 0.0, gain: float = 1.0) -> TokenNet:
    """One block whose head reads register 0 for symbol 0 and register 1 for symbol 1, and a head
    for a patch's own symbol that reads nothing else. A patch has its symbol's sign in coordinate 0,
    registers lie in coordinates 1 and 2."""
    settings = dict(symbols=2, depth=1, heads=1, attends_from=0, mlps=0, layer_scale=scale)
    one = net(2, triggers=0.0, register_gain=gain, **settings)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.zero_()
        book = codebook(one.regime).symbols
        one.embed.weight[0] = book[0] - book[1]
        one.reg_token[0, 1] = one.reg_token[1, 2] = 1.0
        attention = one.blocks[0].attn
        query, key, value = attention.qkv.weight.view(3, 48, 48)
        query[0, 0] = 10.0
        key[0, 1], key[0, 2] = 10.0, -10.0
        value[1, 1] = value[2, 2] = 1.0
        attention.proj.weight[1, 1] = attention.proj.weight[2, 2] = GAIN
        for norm in (one.norm, one.blocks[0].norm1):
            norm.weight.fill_(1.0)
        if scale:
            one.blocks[0].scale1.gamma.fill_(scale)
        one.own.weight[0, 1] = one.own.weight[1, 2] = 1.0
    return one


@pytest.mark.parametrize(("scale", "gain"), [(0.0, 1.0), (0.5, 1.0), (0.0, 0.1)])
def test_a_planted_table_is_found_and_levelled(scale, gain):
    one = planted(scale, gain)
    batch = draw_tokens(one.regime, 256, torch.Generator().manual_seed(2))
    signs = lookup(one, batch)
    assert signs["own"] == signs["own_table"] == 1.0
    assert 0.4 < signs["own_levelled"] < 0.6  # one symbol for all, as if nothing were read
    assert signs["by_symbol"] > 0.99 and signs["by_place"] < 0.02
    # a register is 1 in one of 48 coordinates, after LayerNorm about the root of 48; half of the
    # difference of two is what varies; a patch is the norm of its coordinate 0
    size = torch.tensor(48.0).sqrt() * GAIN / 2**0.5 * (scale or 1.0) * gain
    patch = (codebook(one.regime).symbols @ one.embed.weight[0].detach()).abs().mean()
    assert signs["read"] == pytest.approx(float(size / patch), rel=0.05)


def test_what_is_read_is_only_what_patches_read_and_can_be_put_back():
    one = net(3, depth=2, attends_from=1, triggers=0.0)
    batch = some(16, triggers=0.0)
    shown = ~batch.redundant
    alone = torch.arange(int(shown.sum()))  # each patch a group of its own
    assert replaced(one, batch, shown, alone) == answers(one, batch)
    with torch.no_grad():
        before = one(batch.images).last.patches
        read, _ = read_from_registers(one, batch.images)
        one.reg_token.mul_(0.0)  # LayerNorm of zeros is its bias, 0
        gone, _ = read_from_registers(one, batch.images)
    assert read.shape == before.shape and not gone.any()


@pytest.mark.parametrize("summary", ["query", "cls"])
def test_the_gain_of_registers_scales_what_is_read_from_them_and_no_weight(summary):
    nets = [net(3, depth=2, summary=summary, register_gain=gain) for gain in (1.0, 0.5, 0.0)]
    batch = some(8)
    with torch.no_grad():
        whole, half, none = (read_from_registers(one, batch.images)[0] for one in nets)
        first = [one(batch.images).attention[1] for one in nets]
        nets[2].reg_token.add_(1.0)
        again, _ = read_from_registers(nets[2], batch.images)
    assert torch.allclose(half, whole / 2, atol=1e-6)
    assert whole.norm() > 0 and not none.any() and not again.any()
    assert torch.equal(first[0], first[1]) and torch.equal(first[0], first[2])


@pytest.mark.parametrize("summary", ["query", "cls"])
def test_signs_of_a_table_need_registers_that_patches_see(summary):
    batch = some(32)
    assert set(lookup(net(), batch)) == {"own", "right"}
    unseen = net(3, patches_see_registers=False)
    assert set(lookup(unseen, batch)) == {"own", "right"}
    signs = lookup(net(3, summary=summary), batch)
    assert len(signs) == 9 and all(value >= 0 for value in signs.values())
    assert signs["by_symbol"] > 0.1  # untrained: heads weigh tokens by content from the start


def test_own_answers_leave_triggers_out():
    one = net()
    batch = some(32, triggers=0.5)
    told = one.local(one(batch.images).last.patches, batch)[1]
    right = told.logits.argmax(-1) == batch.symbols
    asked = (told.asked != NOTHING) & ~batch.triggered
    assert answers(one, batch)["own"] == pytest.approx(float(right[asked].float().mean()))
