"""The token world: what is asked can be answered from what is shown, blanks carry nothing of it,
and the net is the one that its regime describes."""

import math

import pytest
import torch

from registers.study.regime import TokenRegime
from registers.study.signs import attention_signs, contents, told, watch
from registers.study.tokens_net import TokenAttention, TokenNet
from registers.study.tokens_world import NOTHING, codebook, draw_tokens, neighbour

PLACES = ["random", "together", "area"]


def some(count: int = 200, **settings):
    regime = TokenRegime(**settings)
    return regime, draw_tokens(regime, count, torch.Generator().manual_seed(2))


# --- scenes


@pytest.mark.parametrize("blanks_at, keys", [(place, 1) for place in PLACES] + [("area", 2)])
@pytest.mark.parametrize("appearance, paper", [("vectors", 0.0), ("glyphs", 0.1)])
def test_every_answer_can_be_read_from_the_patches(blanks_at, keys, appearance, paper):
    """By least squares for what each patch shows, and by looking at the neighbour: no training."""
    regime, batch = some(
        blanks_at=blanks_at, keys=keys, appearance=appearance, paper=paper, symbols=16
    )
    book = codebook(regime)
    parts = torch.cat([book.symbols, book.codes, book.keys[:keys], book.trigger[None]])
    shown = torch.linalg.lstsq(parts.T, batch.images.flatten(0, 1).T).solution.T
    shown = shown.view(*batch.images.shape[:2], -1)
    symbols = shown[..., :16].argmax(-1)
    triggered = (shown[..., -1] > 0.5) & ~batch.redundant
    label = torch.zeros_like(batch.label)
    for key in range(keys):
        holder = (shown[..., key - keys - 1] * ~batch.redundant).argmax(1)
        codes = shown[torch.arange(len(shown)), holder][:, 16 : 16 + regime.codes].argmax(-1)
        label += codes * regime.codes**key
    assert torch.equal(label, batch.label)
    assert regime.classes == regime.codes**keys > batch.label.max()
    assert torch.equal(triggered, batch.triggered)
    cells = torch.arange(25).expand(len(shown), -1)
    left, right = (neighbour(cells, step, 5) for step in (-1, 1))
    own = symbols.gather(1, torch.where(triggered, left, cells))
    assert torch.equal(own[batch.own >= 0], batch.own[batch.own >= 0])
    right = symbols.gather(1, right)
    assert torch.equal(right[batch.right >= 0], batch.right[batch.right >= 0])


def test_several_patches_can_carry_the_code():
    regime, batch = some(holders=4, appearance="glyphs", symbols=16)
    assert (batch.marked.sum(1) == 4).all() and not (batch.marked & batch.redundant).any()
    book = codebook(regime)
    parts = torch.cat([book.symbols, book.codes, book.trigger[None], book.keys[:1]])
    shown = torch.linalg.lstsq(parts.T, batch.images[batch.marked].T).solution.T
    told = shown[:, 16 : 16 + regime.codes].argmax(-1)
    assert torch.equal(told, batch.label.repeat_interleave(4))


@pytest.mark.parametrize("blanks_at", PLACES)
def test_nothing_is_asked_of_blanks_or_about_them(blanks_at):
    regime, batch = some(blanks_at=blanks_at)
    assert (batch.redundant.sum(1) == regime.blanks).all()
    assert (batch.own[batch.redundant] == NOTHING).all()
    assert (batch.right[batch.redundant] == NOTHING).all()
    grid = batch.redundant.view(-1, 5, 5)
    to_the_left_of_a_blank = grid.roll(-1, 2).view(-1, 25)
    assert (batch.right[to_the_left_of_a_blank] == NOTHING).all()
    to_the_right_of_a_blank = grid.roll(1, 2).view(-1, 25)
    assert (batch.own[to_the_right_of_a_blank & batch.triggered] == NOTHING).all()
    assert not (batch.marked & batch.redundant).any()
    assert (batch.marked.sum(1) == regime.keys).all()


def test_what_blanks_show_tells_nothing_of_the_label():
    """Scenes that differ in nothing but their label have the same blanks."""
    _, batch = some(count=3000, codes=2)
    blanks = batch.images[batch.redundant].view(3000, -1)
    means = [blanks[batch.label == code].mean(0) for code in (0, 1)]
    assert (means[0] - means[1]).abs().max() < 0.03  # the noise of 1,500 scenes


def test_blanks_lie_anywhere():
    for blanks_at in PLACES:
        _, batch = some(count=2000, blanks_at=blanks_at)
        assert batch.redundant.float().mean(0).min() > 0.02


@pytest.mark.parametrize("blanks, shape", [(2, (1, 2)), (4, (2, 2)), (6, (2, 3))])
def test_an_area_is_a_rectangle_of_blanks(blanks, shape):
    _, batch = some(blanks=blanks, blanks_at="area")
    for scene in batch.redundant.view(-1, 5, 5):
        rows, columns = scene.nonzero(as_tuple=True)
        assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == shape


def test_contents_of_blanks_are_what_the_regime_says():
    regime, batch = some(content="symbol", mark=0.5, noise=2.0)
    book = codebook(regime)
    expected = 2.0 * book.symbols[batch.symbols] + 0.5 * book.blank
    assert torch.allclose(batch.images[batch.redundant], expected[batch.redundant])
    _, batch = some(content="shared", blanks=4)
    blanks = batch.images[batch.redundant].view(-1, 4, 64)
    assert torch.equal(blanks[:, 0], blanks[:, 3])
    _, batch = some(content="noise")
    blanks = batch.images[batch.redundant].view(-1, 2, 64)
    assert not torch.isclose(blanks[:, 0], blanks[:, 1]).all()
    regime, batch = some(content="tile", mark=0.0, blanks=6, blanks_at="area")
    blanks = batch.images[batch.redundant].view(-1, 6, 64)
    assert (blanks == blanks[:, :1]).all()
    gaps = torch.cdist(blanks[:, 0], codebook(regime).symbols).min(1).values
    assert gaps.max() < 1e-2  # an ordinary symbol, so that no single patch tells that it is blank


def test_all_paper_of_a_scene_has_its_texture_and_other_scenes_another():
    glyphs = dict(appearance="glyphs", noise=0.0, mark=0.0, paper=0.3)
    plain, textured = (some(texture=norm, **glyphs)[1].images for norm in (0.0, 2.0))
    texture = textured - plain  # it is drawn last
    assert torch.allclose(texture, texture[:, :1].expand_as(texture), atol=1e-6)
    assert torch.allclose(texture.norm(dim=-1), torch.tensor(2.0), atol=1e-4)
    assert torch.cdist(texture[:, 0], texture[:, 0]).fill_diagonal_(9).min() > 1


def test_token_scenes_are_those_that_finished_runs_were_trained_on():
    """Sums of first batches, taken when the runs of results.csv were made."""
    settings = (dict(blanks=4, blanks_at="area", content="shared"), dict(appearance="glyphs"))
    drawn = (draw_tokens(TokenRegime(**s), 16, torch.Generator().manual_seed(3)) for s in settings)
    sums = [float(batch.images.double().abs().sum()) for batch in drawn]
    assert sums == pytest.approx(EARLIER, abs=1e-3)


EARLIER = [3010.4443, 1708.9125]


def test_blank_paper_has_no_ink_and_glyphs_differ():
    regime, batch = some(appearance="glyphs", noise=0.0, mark=0.0)
    assert (batch.images[batch.redundant] == 0).all()
    book = codebook(regime)
    assert len({tuple(row) for row in book.symbols.tolist()}) == regime.symbols
    assert (book.symbols >= 0).all()
    assert torch.allclose(book.symbols.norm(dim=1), torch.ones(regime.symbols))


def test_signs_average_to_nothing_and_hide_no_answer():
    """A linear map cannot tell a symbol whose vector is shown as often as the opposite one."""
    plain, signed = (some(400, signed=value, triggers=0.0, keys=1)[1] for value in (False, True))
    book = codebook(TokenRegime()).symbols
    shown = ~signed.redundant & ~signed.marked
    for batch, own in ((plain, 1.0), (signed, 0.0)):
        ordinary = ~batch.redundant & ~batch.marked
        match = (batch.images[ordinary] @ book.T).gather(1, batch.symbols[ordinary][:, None])
        assert float(match.mean()) == pytest.approx(own, abs=0.05)
    sizes = (signed.images[shown] @ book.T).abs()
    assert torch.equal(sizes.argmax(1), signed.symbols[shown])


def test_scenes_of_a_group_are_alike():
    """They share places; one symbol in twenty is drawn anew, and three labels in ten."""
    _, batch = some(1003, alike=4, codes=32)
    label, symbols = batch.label[:1000].view(-1, 4), batch.symbols[:1000].view(-1, 4, 25)
    for places in (batch.redundant, batch.marked, batch.triggered):
        grouped = places[:1000].view(-1, 4, 25)
        assert torch.equal(grouped, grouped[:, :1].expand_as(grouped))
    # in each of 2 scenes a symbol stays with 0.95, and a label with 0.7
    same = float((symbols[:, 1] == symbols[:, 2]).float().mean())
    assert abs(same - 0.95**2) < 0.02
    told = float((label[:, 1] == label[:, 2]).float().mean())
    assert abs(told - (0.7**2 + (1 - 0.7**2) / 32)) < 0.1
    assert not torch.equal(symbols[0, 0], symbols[1, 0])


def test_each_of_several_labels_of_a_group_is_drawn_anew_by_itself():
    _, batch = some(1000, alike=4, codes=32, keys=4, labels="each", blanks=2)
    same = (batch.labels.view(-1, 4, 4)[:, 1] == batch.labels.view(-1, 4, 4)[:, 0]).float()
    share = 0.7 + 0.3 / 32
    assert float(same.mean()) == pytest.approx(share, abs=0.05)
    assert float(same.prod(1).mean()) == pytest.approx(share**4, abs=0.1)  # not all at once


# --- the net


def net(registers: int = 0, **settings) -> TokenNet:
    torch.manual_seed(0)
    return TokenNet(TokenRegime(**settings), registers)


def test_the_stem_has_no_attention_and_late_blocks_may_have_no_mlp():
    blocks = net(depth=4, attends_from=2, mlps=3).blocks
    assert [block.attn is not None for block in blocks] == [False, False, True, True]
    assert [block.mlp is not None for block in blocks] == [True, True, True, False]
    assert blocks[0].mlp[1].out_features == TokenRegime().hidden


def test_the_stem_may_be_wider_and_branches_may_start_small():
    wide = net(stem_hidden=20)
    assert [block.mlp[1].out_features for block in wide.blocks] == [20, 6, 6]
    images = some(4)[1].images
    with torch.no_grad():
        for scale, moved in ((1e-4, 1e-2), (0.0, None)):
            seen = net(layer_scale=scale)(images)
            update = (seen.layers[-1] - seen.start).norm() / seen.start.norm()
            assert update < moved if moved else update > 0.1


def test_biases_start_at_zero_and_change_nothing_before_they_learn():
    without, with_biases = net(), net(biases=True)
    biases = {name for name, _ in with_biases.named_parameters()} - set(without.state_dict())
    assert len(biases) == 2 * 3 + 2  # of three MLPs, and of two blocks with attention
    assert not any(with_biases.get_parameter(name).any() for name in biases)
    with_biases.load_state_dict(without.state_dict(), strict=False)
    images = some(4)[1].images
    with torch.no_grad():
        assert torch.equal(without(images).last.patches, with_biases(images).last.patches)
        with_biases.blocks[1].attn.proj.bias.fill_(1.0)
        assert not torch.equal(without(images).last.patches, with_biases(images).last.patches)


@pytest.mark.parametrize(
    "summary, registers", [("query", 0), ("query", 3), ("cls", 2), ("late", 0)]
)
def test_tokens_lie_where_split_says(summary, registers):
    one = net(registers, summary=summary)
    seen = one(some(4)[1].images)
    for layer, x in enumerate(seen.layers):
        tokens = one.split(x, layer)
        there = summary == "cls" or (summary == "late" and layer == 2)
        assert (tokens.cls is not None) == there
        assert tokens.registers.shape[1] == registers
        assert tokens.patches.shape[1] == 25
    assert one.summary(seen.last).shape == (4, 48)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "relu"])
def test_weights_of_attention(kind):
    attention = TokenAttention(TokenRegime(attention=kind))
    x = torch.randn(2, 7, 48)
    update, weights = attention(x)
    assert update.shape == x.shape
    assert (weights >= 0).all()
    sums = weights.sum(-1)
    assert torch.allclose(sums, torch.ones(())) == (kind == "softmax")


def test_a_block_before_positions_sees_contents_only():
    one = net(1, depth=3, attends_from=0, positions_from=1)
    images = some(4)[1].images
    order = torch.randperm(25, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        seen, moved = one(images), one(images[:, order])
        first, after = ([s.layers[at][:, 1:] for s in (seen, moved)] for at in (0, 1))
    assert torch.allclose(first[0][:, order], first[1], atol=1e-5)
    assert not torch.allclose(after[0][:, order], after[1], atol=1e-2)
    assert torch.equal(seen.start, seen.embeddings)


@pytest.mark.parametrize("late", ["label", "local"])
def test_what_is_not_asked_for_yet_moves_nothing(late):
    one = net()
    _, batch = some(8)
    for asked in (False, True):
        setattr(one, f"{late}_asked", asked)
        one.zero_grad()
        one.losses(batch)[0].backward()
        moved = [bool(head.weight.grad.any()) for head in (one.label, one.own, one.right)]
        now, later = moved[:1], moved[1:]
        if late == "local":
            now, later = later, now
        assert now == [asked] * len(now) and all(later)
        assert bool(one.query.grad.any()) == (asked or late == "local")


def test_every_ordinary_patch_may_be_asked_for_its_own_symbol_always():
    _, batch = some(8)
    assert torch.equal(batch.kept[~batch.redundant], batch.symbols[~batch.redundant])
    assert (batch.kept[batch.redundant] == NOTHING).all()
    torch.manual_seed(0)
    without = net()
    assert without.kept is None
    one = net(kept=2.0)
    one.load_state_dict(without.state_dict(), strict=False)
    with torch.no_grad():
        answers = one.kept(one(batch.images).last.patches)
        told = torch.nn.functional.cross_entropy(
            answers[~batch.redundant], batch.symbols[~batch.redundant]
        )
        assert torch.allclose(one.losses(batch)[0], without.losses(batch)[0] + 2 * told)


def test_a_spare_key_takes_weight_and_gives_nothing():
    torch.manual_seed(0)
    attention = TokenAttention(TokenRegime(spare_key=True))
    _, weights = attention(torch.randn(2, 7, 48))
    assert torch.allclose(weights.sum(-1), torch.tensor(7 / 8), atol=0.2)
    attention.spare.data += 50 * torch.randn_like(attention.spare)
    _, weights = attention(torch.randn(2, 7, 48))
    assert weights.sum(-1).min() < 0.1


def test_a_hidden_patch_is_seen_by_no_other_token():
    one = net(2)
    images = some(4)[1].images
    changed = images.clone()
    changed[:, 3] += 1
    hidden = torch.zeros(4, 25, dtype=torch.bool)
    hidden[:, 3] = True
    others = [index for index in range(27) if index != 5]
    with torch.no_grad():
        layers = [one(x, hidden).layers[-1][:, others] for x in (images, changed)]
        assert torch.equal(*layers)
        layers = [one(x).layers[-1][:, others] for x in (images, changed)]
        assert not torch.equal(*layers)


def test_what_the_pooling_query_may_not_read_has_no_weight():
    one = net(2)
    _, batch = some(8)
    with torch.no_grad():
        last = one(batch.images).last
        weights = one.pool(last, batch.redundant)
        assert (weights[:, 2:][batch.redundant] == 0).all()
        assert torch.allclose(weights.sum(1), torch.ones(8))
        none = torch.zeros_like(batch.redundant)
        right = (one.label(one.summary(last)).argmax(1) == batch.label).float().mean()
        assert one.unread(batch, none) == right


def test_a_step_without_gradient_tells_accuracies_and_the_same_loss():
    one = net()
    _, batch = some(8)
    loss, metrics = one.losses(batch)
    assert not metrics
    with torch.no_grad():
        again, metrics = one.losses(batch)
    assert torch.equal(loss, again)
    assert set(metrics) == {"accuracy", "local", "triggered"}


# --- signs


def test_signs_find_a_head_that_looks_at_blanks():
    one = net(2)
    _, batch = some(8)
    weights = torch.full((8, 4, 27, 27), 1e-6)
    weights[:, 1, :, 2:] = batch.redundant[:, None].float() / 2  # head 1: half on each blank
    signs = attention_signs(one, weights, 1, batch.redundant, torch.ones(8, 25))
    assert signs["head_on_redundant"] == pytest.approx(1.0, abs=1e-3)
    assert signs["head_on_registers"] == pytest.approx(0.0, abs=1e-3)
    assert signs["sink_redundant"] == 1.0


def test_the_watch_names_every_layer_and_no_attention_in_the_stem():
    row = watch(net(1), some(16)[1])
    assert {f"layer{number}/redundant_over_others" for number in (1, 2, 3)} <= set(row)
    assert "layer1/head_on_redundant" not in row
    assert "layer2/head_on_registers" in row
    assert row["pool_on_redundant"] + row["pool_on_registers"] < 1
    assert 0 < row["pool_on_marked"] < row["pool_on_triggered"] < 1  # one patch, and many


def test_the_watch_finds_who_tells_the_label():
    _, batch = some(256)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(256, 25, 48, generator=generator)
    blanks, others = batch.redundant, ~batch.redundant & ~batch.marked
    chance = 1 / 8
    for of_BP in (blanks, others):
        assert told(tokens, of_BP, batch.labels) == pytest.approx(chance, abs=0.1)
    codes = 3 * torch.randn(8, 48, generator=generator)
    tokens = tokens + blanks[..., None] * codes[batch.label][:, None]
    assert told(tokens, blanks, batch.labels) > 0.95
    assert told(tokens, others, batch.labels) == pytest.approx(chance, abs=0.1)
    assert math.isnan(told(tokens, torch.zeros_like(blanks), batch.labels))


def test_what_blanks_hold_is_told_from_what_they_always_are():
    """Planted: a vector common to all, 3 units long, one of the label, 2, and noise, 1."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(4).repeat(500)
    blank = torch.arange(6).expand(2000, -1) < 4
    always, noise = torch.zeros(64), torch.randn(2000, 6, 64, generator=generator) / 8
    always[60] = 3
    stored = always + 2 * torch.eye(64)[label][:, None] + noise
    found = contents(stored, blank, label[:, None])
    # the labels' vectors have a mean of their own, 2 / sqrt(4) long
    assert found["redundant_constant"] == pytest.approx((9 + 1) / (9 + 4 + 1), abs=0.01)
    assert found["redundant_of_scene"] == pytest.approx(3 / 14, abs=0.01)
    assert found["redundant_own"] == pytest.approx(1 / 14, abs=0.01)
    assert found["redundant_by_label"] == pytest.approx(3 / (3 + 1), abs=0.01)
    assert contents(always + noise, blank, label[:, None])["redundant_by_label"] < 0.01
    assert contents(stored, torch.zeros_like(blank), label[:, None]) == {}
