"""Pictures that are asked several labels: each is shown by one patch, and who keeps it is found."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from registers.models.sequence import split_tokens
from registers.study.division import counts, division
from registers.study.exchange import asked, exchange
from registers.study.net import Seen
from registers.study.regime import CARRIERS, TokenRegime
from registers.study.signs import attention_signs, contents, told, watch
from registers.study.tokens_net import TokenNet
from registers.study.tokens_world import KEYS, codebook, draw_tokens
from registers.study.worlds import build_net

SIX = dict(keys=6, labels="each", codes=8, symbols=16, triggers=0.0, blanks=4, summary="cls")


def some(count: int = 200, **settings):
    regime = TokenRegime(**SIX | settings)
    return regime, draw_tokens(regime, count, torch.Generator().manual_seed(2))


@pytest.mark.parametrize("appearance, paper", [("vectors", 0.0), ("glyphs", 0.1)])
def test_each_label_is_read_from_the_patch_with_its_mark(appearance, paper):
    """A patch with a code looks like one of all sums of symbol, code and mark."""
    regime, batch = some(appearance=appearance, paper=paper)
    book = codebook(regime)
    sums = (
        book.symbols[:, None, None]
        + book.codes[None, :, None]
        + book.keys[None, None, : regime.keys]
    )
    shown = batch.images[batch.marked]
    nearest = torch.cdist(shown, sums.flatten(0, 2)).argmin(1)
    code, key = nearest // regime.keys % regime.codes, nearest % regime.keys
    assert (batch.marked.sum(1) == regime.keys).all()
    scene = batch.marked.nonzero()[:, 0]
    labels = torch.full_like(batch.labels, -1)
    labels[scene, key] = code
    assert torch.equal(labels, batch.labels) and torch.equal(batch.label, batch.labels[:, 0])
    assert regime.classes == regime.codes * regime.keys


def test_all_marks_differ():
    for appearance in ("vectors", "glyphs"):
        keys = codebook(TokenRegime(appearance=appearance)).keys
        assert len(keys) == KEYS and torch.pdist(keys).min() > 0.3


def test_the_loss_is_a_mean_over_labels():
    regime, batch = some(32)
    torch.manual_seed(0)
    net = TokenNet(regime, 2)
    logits = net.label(net.summary(net(batch.images).last)).view(32, 6, 8)
    losses = [F.cross_entropy(logits[:, k], batch.labels[:, k]) for k in range(6)]
    with torch.no_grad():
        local = sum(float(task.loss) for task in net.local(net(batch.images).last.patches, batch))
        loss, metrics = net.losses(batch)
    assert float(loss) == pytest.approx(float(sum(losses).detach()) / 6 + local, abs=1e-5)
    right = (logits.argmax(2) == batch.labels).float().mean()
    assert float(metrics["accuracy"]) == pytest.approx(float(right))
    assert list(net.labels(batch)) == [f"label{k}" for k in range(1, 7)]


class Carriers(nn.Module):
    """After the first block [CLS] tells labels 1 and 2, a blank 3, the second register 4, another
    patch 5 and nobody 6; after the second [CLS] tells all."""

    registers = 2

    def __init__(self, batch) -> None:
        super().__init__()
        self.batch = batch

    def forward(self, images):
        noise = 0.1 * torch.randn(len(images), 3 + images.shape[1], 48)
        one_hot = F.one_hot(self.batch.labels, 8).float()  # (B, K, 8)

        def shows(*labels):
            kept = torch.zeros_like(one_hot)
            kept[:, list(labels)] = one_hot[:, list(labels)]
            return kept.flatten(1)

        first, last = noise.clone(), noise.clone()
        first[:, 0] += shows(0, 1)
        first[:, 2] += shows(3)
        other = ~self.batch.redundant & ~self.batch.marked
        first[:, 3:] += self.batch.redundant[..., None] * shows(2)[:, None]
        first[:, 3:] += other[..., None] * shows(4)[:, None]
        last[:, 0] += shows(*range(6))
        return Seen(None, None, [first, last], None, None)

    def split(self, x, layer):
        return split_tokens(x, 2, cls=True)


def test_who_tells_which_label_is_found():
    _, batch = some(1000)
    torch.manual_seed(0)
    found = division(Carriers(batch), batch)
    planted = np.zeros((len(CARRIERS), 2, 6), dtype=bool)
    planted[0, 0, [0, 1]] = planted[0, 1] = True
    planted[1, 0, 2] = planted[2, 0, 4] = planted[3, 0, 3] = True
    assert (found[planted] > 0.95).all() and (found[~planted] < 0.3).all()
    told = counts(found)
    assert [told[f"labels/first/{name}"] for name in CARRIERS] == [2, 1, 1, 1]
    assert [told[f"labels/last/{name}"] for name in CARRIERS] == [6, 0, 0, 0]


class Layers(nn.Module):
    """A net that puts these layers out, of which [CLS] joins the last, before two registers."""

    def __init__(self, *layers) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, images):
        return Seen(None, None, list(self.layers), None, None)

    def split(self, x, layer):
        return split_tokens(x, 2, cls=layer == len(self.layers) - 1)


def test_tokens_are_asked_where_they_lie_after_each_of_three_blocks():
    """The first register tells the label after block 1, a blank after 2, [CLS] after 3."""
    _, batch = some(600, keys=1, labels="one")
    generator = torch.Generator().manual_seed(0)
    layers = [0.1 * torch.randn(600, tokens, 8, generator=generator) for tokens in (27, 27, 28)]
    code = F.one_hot(batch.label, 8).float()
    layers[0][:, 0] += code
    layers[1][:, 2:] += batch.redundant[..., None] * code[:, None]
    layers[2][:, 0] += code
    found = division(Layers(*layers), batch)
    assert found.shape == (len(CARRIERS), 3, 1)
    assert np.isnan(found[0, :2]).all()
    planted = np.array([[0, 0, 1], [0, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=bool)[..., None]
    assert (found[planted] > 0.95).all() and (np.nan_to_num(found)[~planted] < 0.3).all()
    told = counts(found)
    assert told == {
        **{f"labels/first/{name}": float(name == "register") for name in CARRIERS[1:]},
        **{f"labels/last/{name}": 0.0 for name in CARRIERS[1:]},
    }


def test_labels_count_that_are_told_more_than_half_of_the_time_after_first_and_last_block():
    told = np.zeros((len(CARRIERS), 3, 4))
    told[0] = [[0.51, 0.5, 0.49, 0.9], [0.9, 0.9, 0.9, 0.9], [0.51, 0.5, 0.9, 0.9]]
    found = counts(told)
    assert (found["labels/first/cls"], found["labels/last/cls"]) == (2, 3)


def test_what_tells_in_the_scenes_of_the_fit_must_tell_in_the_others():
    _, batch = some(400, keys=1, labels="one")
    layers = 0.1 * torch.randn(400, 28, 8, generator=torch.Generator().manual_seed(0))
    shown = batch.label.clone()
    shown[200:] = (shown[200:] + 1) % 8  # another code in the second half
    layers[:, 0] += F.one_hot(shown, 8)
    assert division(Layers(layers), batch)[0, 0, 0] < 0.05


@pytest.mark.parametrize("beside", ["common", "small"])
def test_a_label_is_told_beside_noise_that_is_common_and_beside_many_small_numbers(beside):
    """Common: two numbers share noise that is larger than their difference, which tells. Small: one
    number tells, and nearly as many as there are scenes to fit are a thousand times smaller."""
    _, batch = some(400, keys=1, labels="one", codes=2)
    generator = torch.Generator().manual_seed(1)
    noise, own = torch.randn(2, 400, generator=generator)
    if beside == "common":
        shown = torch.stack([noise, noise + 0.1 * own + 0.4 * batch.label], 1)
    else:
        shown = 1e-3 * torch.randn(400, 180, generator=generator)
        shown[:, 0] = batch.label + 0.25 * own
    assert division(Layers(shown[:, None].expand(-1, 28, -1)), batch)[0, 0, 0] > 0.93


def only(codes_BK8, *labels):
    """(B, 48): the codes of these labels, one-hot, and nothing of the others."""
    kept = torch.zeros_like(codes_BK8)
    kept[:, list(labels)] = codes_BK8[:, list(labels)]
    return kept.flatten(1)


class Store(nn.Module):
    """Blanks hold labels 1, 2, 3 and 5, other patches 4, which registers hold in their place where
    there are any, and patches that show a code 6. Registers hold a wrong label 3, too."""

    def __init__(self, batch, registers) -> None:
        super().__init__()
        codes = F.one_hot(batch.labels, 8).float()
        other = ~batch.redundant & ~batch.marked
        patches = batch.redundant[..., None] * only(codes, 0, 1, 2, 4)[:, None]
        patches = patches + batch.marked[..., None] * only(codes, 5)[:, None]
        fourth, wrong = only(codes, 3), 9 * only(codes.roll(1, 2), 2)
        if not registers:
            patches = patches + other[..., None] * fourth[:, None]
        held = (fourth + wrong)[:, None].expand(-1, registers, -1)
        self.tokens = torch.cat([torch.zeros(len(codes), 1, 48), held, patches], 1)

    def forward(self, x, allowed=None, gain=None):
        return self.tokens, None


class Reader(nn.Module):
    """[CLS] adds what it may see of some labels. Where they `relay`, other patches take label 3
    from all that they may see, and nobody else keeps it."""

    def __init__(self, batch, labels, relay=False) -> None:
        super().__init__()
        self.read = only(torch.ones(1, 6, 8), *labels)
        self.relayed = only(torch.ones(1, 6, 8), 2)
        self.relay, self.other = relay, ~batch.redundant & ~batch.marked

    def forward(self, x, allowed=None, gain=None):
        tokens = x.shape[1]
        sight = torch.ones(tokens, tokens) if allowed is None else allowed.float()
        sight = sight.expand(len(x), 1, tokens, tokens)[:, 0]
        seen = sight @ torch.cat([0 * x[:, :1], x[:, 1:]], 1)
        cls = x[:, :1] + self.read * seen[:, :1]
        if not self.relay:
            return torch.cat([cls, x[:, 1:]], 1), None
        other = F.pad(self.other, (x.shape[1] - self.other.shape[1], 0))[..., None]
        x = x * (1 - self.relayed) + self.relayed * other * seen
        return torch.cat([cls, x[:, 1:]], 1), None


@pytest.mark.parametrize(
    "registers, lost, moved",
    [
        (0, dict(redundant=3, last=1, other=2, marked=1, but_redundant=3, patches=6), {}),
        (
            2,
            dict(redundant=3, last=1, other=1, marked=1, but_redundant=2, patches=5),
            {"_registers": 1},
        ),
    ],
)
def test_who_uses_what_is_found_by_hiding_and_by_exchange(registers, lost, moved):
    """In block 2 [CLS] reads labels 1, 2, 4 and 6, in block 3, the last, label 5 from blanks and 3
    from other patches, which have it from blanks; patches do not see registers."""
    regime, batch = some(400, depth=3, patches_see_registers=False)
    net = TokenNet(regime, registers).eval()
    readers = Reader(batch, (0, 1, 3, 5), relay=True), Reader(batch, (2, 4))
    net.blocks = nn.ModuleList([Store(batch, registers), *readers])
    net.norm = nn.Identity()
    net.label.weight.data, net.label.bias.data = torch.eye(48), torch.zeros(48)
    assert asked(net)
    chance = float((batch.labels == 0).float().mean())  # of no evidence the first code is told
    told = exchange(net, batch)
    for name, labels in lost.items():
        expected = (6 - labels + labels * chance) / 6
        assert told[f"hidden_cls/{name}"] == pytest.approx(expected, abs=0.05), name
    for name, labels in ({"": 4, "_last": 1, "_other": 0} | moved).items():
        assert told[f"exchanged{name}/labels"] == labels, name
        own, donor = (6 - labels + labels / 8) / 6, (labels + (6 - labels) / 8) / 6
        assert told[f"exchanged{name}/own"] == pytest.approx(own, abs=0.05), name
        assert told[f"exchanged{name}/donor"] == pytest.approx(donor, abs=0.05), name
    assert ("exchanged_registers/own" in told) == bool(registers)


class First(Reader):
    """Tokens hold their labels from the start, and [CLS] reads in the same block."""

    def __init__(self, batch, labels) -> None:
        super().__init__(batch, labels)
        self.store = Store(batch, 0)

    def forward(self, x, allowed=None, gain=None):
        return super().forward(self.store(x)[0], allowed)


def test_what_cls_takes_in_the_first_block_is_neither_hidden_nor_exchanged():
    regime, batch = some(100, depth=3)
    net = TokenNet(regime, 0).eval()
    net.blocks = nn.ModuleList([First(batch, range(6)), Reader(batch, ()), Reader(batch, ())])
    net.norm = nn.Identity()
    net.label.weight.data, net.label.bias.data = torch.eye(48), torch.zeros(48)
    told = exchange(net, batch)
    own = {name: value for name, value in told.items() if "hidden" in name or "own" in name}
    assert len(own) == 6 + 3 and set(own.values()) == {1.0}
    assert told["exchanged/labels"] == 0


def test_other_patches_are_exchanged_after_the_first_block():
    """Of 9 patches that are neither blank nor marked, fewer than of blanks, all are exchanged."""
    regime, batch = some(200, depth=3, blanks=10)
    net = TokenNet(regime, 0).eval()
    readers = Reader(batch, (0, 1, 3, 5)), Reader(batch, (2, 4))
    net.blocks = nn.ModuleList([Store(batch, 0), *readers])
    net.norm = nn.Identity()
    net.label.weight.data, net.label.bias.data = torch.eye(48), torch.zeros(48)
    assert exchange(net, batch)["exchanged_other/labels"] == 1


def test_a_label_is_the_other_scene_s_where_it_is_told_so_in_more_than_half(monkeypatch):
    regime, batch = some(100)
    donor, answers = batch.labels.roll(1, 0), batch.labels.clone()
    answers[:60, 0], answers[:40, 1] = donor[:60, 0], donor[:40, 1]
    monkeypatch.setattr("registers.study.exchange._answers", lambda *_: answers)
    told = exchange(TokenNet(regime, 0).eval(), batch)
    assert told["exchanged/labels"] == 1
    assert told["exchanged/donor"] == pytest.approx(float((answers == donor).float().mean()))


def test_only_a_cls_of_all_blocks_with_several_labels_is_asked_by_exchange():
    assert not asked(TokenNet(some(1, summary="query")[0], 0))
    assert not asked(TokenNet(some(1, summary="late")[0], 0))
    assert not asked(TokenNet(some(1, depth=1, attends_from=0)[0], 0))
    assert not asked(TokenNet(some(1, keys=1, labels="one")[0], 0))
    assert not asked(build_net(some(1, objective="captions")[0], 0))
    assert asked(build_net(some(1, objective="deit3")[0], 0))
    assert asked(TokenNet(some(1)[0], 2))


def test_without_cls_or_registers_their_counts_are_missing():
    regime, batch = some(300, summary="query")
    net = TokenNet(regime, 0).eval()
    assert set(counts(division(net, batch))) == {
        f"labels/{when}/{name}" for when in ("first", "last") for name in ("redundant", "other")
    }


def test_the_quick_look_is_a_mean_over_labels():
    _, batch = some(600)
    tokens = torch.randn(600, 25, 48, generator=torch.Generator().manual_seed(0))
    codes = 3 * torch.randn(8, 48, generator=torch.Generator().manual_seed(1))
    tokens = tokens + batch.redundant[..., None] * codes[batch.labels[:, 3]][:, None]
    each = [told(tokens, batch.redundant, batch.labels[:, [k]]) for k in range(6)]
    assert each[3] > 0.95 and max(each[:3] + each[4:]) < 0.3
    assert told(tokens, batch.redundant, batch.labels) == pytest.approx(sum(each) / 6)


def test_signs_find_what_cls_looks_at():
    """Of two heads one gives all to a blank, one half to a register and half to itself."""
    regime, batch = some(8)
    net = TokenNet(regime, 2)
    weights = torch.zeros(8, 2, 28, 28)
    weights[:, 0, 0] = F.pad(batch.redundant / batch.redundant.sum(1, keepdim=True), (3, 0))
    weights[:, 1, 0, 0] = weights[:, 1, 0, 1] = 0.5
    signs = attention_signs(net, weights, 2, batch.redundant, torch.ones(8, 25))
    assert signs["cls_on_redundant"] == pytest.approx(0.5)
    assert signs["cls_on_registers"] == pytest.approx(0.25)


def test_the_watch_tells_of_each_block_what_cls_looks_at(monkeypatch):
    """In block 1 at blanks, in block 2 at other patches, in block 3 at registers."""
    regime, batch = some(8)
    net = TokenNet(regime, 2).eval()
    seen, weights = net(batch.images), torch.zeros(3, 8, 4, 28, 28)
    weights[0, :, :, 0] = F.pad(batch.redundant / 4, (3, 0))[:, None]
    weights[1, :, :, 0] = F.pad(~batch.redundant / 21, (3, 0))[:, None]
    weights[2, :, :, 0, 1:3] = 0.5
    monkeypatch.setattr(net, "observe", lambda images: seen._replace(attention=list(weights)))
    row = watch(net, batch)
    found = [
        [row[f"layer{layer}/cls_on_{where}"] for layer in (1, 2, 3)]
        for where in ("redundant", "registers")
    ]
    assert np.allclose(found, [[1, 0, 0], [0, 0, 1]])


def test_what_a_label_explains_of_blanks_is_a_mean_over_labels():
    _, batch = some(600)
    codes = torch.randn(8, 48, generator=torch.Generator().manual_seed(1))
    tokens = codes[batch.labels[:, 2]][:, None].expand(-1, 25, -1)
    each = [
        contents(tokens, batch.redundant, batch.labels[:, [k]])["redundant_by_label"]
        for k in range(6)
    ]
    assert each[2] > 0.99 and max(each[:2] + each[3:]) < 0.1
    found = contents(tokens, batch.redundant, batch.labels)["redundant_by_label"]
    assert found == pytest.approx(sum(each) / 6)


def test_the_watch_tells_what_blanks_are_made_of():
    """Where blanks alone show the same vector always, they are a constant, and nothing else is."""
    regime, batch = some(64, content="noise", noise=0.0, mark=4.0)
    row = watch(TokenNet(regime, 0).eval(), batch)
    assert row["redundant_constant"] > 0.5
    shown = some(64, content="noise", noise=4.0, mark=0.0)[1]
    assert watch(TokenNet(regime, 0).eval(), shown)["redundant_own"] > 0.5
