"""What the examination hides, draws and asks is what its words say."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from registers.bank import standardised
from registers.models.sequence import split_tokens
from registers.study import examine as module
from registers.study.examine import (
    ONCE,
    SHOWN,
    Subject,
    examine,
    hidden,
    idle_attention,
    pictures,
    view,
)
from registers.study.net import Net, Seen
from registers.study.regime import Regime, TokenRegime
from registers.study.scenes import draw
from registers.study.tokens_net import TokenNet
from registers.study.tokens_world import draw_tokens
from registers.study.worlds import build_net

NONE = SimpleNamespace(value=None)  # no cut-off
AREA = dict(blanks=4, blanks_at="area", triggers=0.0)


def some(count: int = 12, **settings):
    regime = TokenRegime(**AREA | settings)
    return regime, draw_tokens(regime, count, torch.Generator().manual_seed(2))


# --- who uses redundant patches


class Asked:
    """Answers with numbers that tell which call they are of, and keeps what is hidden in it."""

    asked = "triggered"

    def __init__(self, local: bool = True, query: bool = True) -> None:
        self.query = torch.zeros(4) if query else None
        self.local = local
        self.hidden, self.unseen = [], []

    def losses(self, scenes, mask, hidden_BP):
        assert mask is None
        self.hidden.append(hidden_BP)
        count = len(self.hidden)
        told = {"accuracy": torch.tensor(0.0), "triggered": torch.tensor(float(count))}
        return None, told | ({"local": torch.tensor(10.0 * count)} if self.local else {})

    def unread(self, scenes, unread_BP):
        self.unseen.append(unread_BP)
        return 100.0 * len(self.unseen)


def test_as_many_others_are_hidden_as_there_are_redundant_patches():
    _, batch = some()
    net = Asked()
    told = hidden(net, batch, batch.marked)
    everything, redundant, other = net.hidden
    assert everything is None and redundant is batch.redundant
    assert (other.sum(1) == 4).all() and not (other & (batch.redundant | batch.marked)).any()
    assert len(other.float().unique(dim=0)) > 1
    again = Asked()
    hidden(again, batch, batch.marked)
    assert torch.equal(again.hidden[2], other)
    assert net.unseen[0] is redundant and net.unseen[1] is other and len(net.unseen) == 2
    sights = ("all", "redundant", "other")
    assert told == (
        {f"hidden/{name}": k for k, name in enumerate(sights, 1)}
        | {f"hidden_local/{name}": 10 * k for k, name in enumerate(sights, 1)}
        | {"unread/redundant": 100, "unread/other": 200}
    )


def test_what_a_net_is_not_asked_or_a_scene_does_not_have_is_not_hidden():
    _, batch = some()
    nobody = hidden(Asked(), batch, ~batch.redundant)
    assert not any(name.endswith("/other") for name in nobody) and len(nobody) == 5
    assert set(hidden(Asked(query=False, local=False), batch, batch.marked)) == {
        f"hidden/{name}" for name in ("all", "redundant", "other")
    }
    silent = Asked()
    silent.asked = ""
    assert hidden(silent, batch, batch.marked) == {} and not silent.hidden


@pytest.mark.parametrize(
    "kind, settings", [(TokenNet, dict(attends_from=0)), (Net, dict(depth=3, gain=20.0))]
)
def test_what_is_hidden_is_still_seen_in_the_first_block(kind, settings):
    torch.manual_seed(0)
    net = kind((TokenRegime if kind is TokenNet else Regime)(**settings), 2).eval()
    images = torch.randn(3, 25, 64) if kind is TokenNet else torch.randn(3, 3, 24, 24)
    hide = torch.rand(3, 25 if kind is TokenNet else 36) < 0.5
    with torch.no_grad():
        shown, blind = net(images).layers, net(images, hidden_BP=hide).layers
    assert torch.equal(shown[0], blind[0])
    assert not torch.allclose(shown[1], blind[1], atol=1e-3)


def test_a_patch_knows_the_label_if_it_shows_a_code():
    for objective in ("tasks", "dinov2", "openclip"):
        masked = 0.3 if objective == "dinov2" else 0.0
        regime, batch = some(objective=objective, masked=masked, triggers=0.3)
        assert torch.equal(build_net(regime, 0).knows(batch), batch.marked)


def test_a_patch_knows_the_label_if_it_shows_an_object_or_is_asked_for_something_else():
    regime = Regime(background="texture", plain=0.3, local_loss=1.0, triggers=2)
    scenes = draw(regime, 20, torch.Generator().manual_seed(0))
    trigger = (scenes.contents == regime.kinds) | (scenes.contents == regime.kinds + 1)
    assert trigger.any() and not (trigger & (scenes.kinds >= 0)).any()
    assert torch.equal(Net(regime, 0).knows(scenes), trigger | (scenes.kinds >= 0))


# --- what the figures show


class Looks:
    """Attention of the given blocks, of [CLS], two registers and patches; scenes by number."""

    registers = 2

    def __init__(self, attention, query=None) -> None:
        self.attention, self.query = attention, query

    def observe(self, images):
        kept = [w if w is None else w[: len(images)] for w in self.attention]
        return Seen(None, None, [], None, kept)

    def __call__(self, images):
        return Seen(None, None, [], images.sum((1, 2)))

    def pool(self, last):
        return last


def subject_of(norms: list[np.ndarray], redundant: torch.Tensor, cls=None) -> Subject:
    last = SimpleNamespace(cls=cls)
    return Subject(norms, last, None, redundant.numpy(), None, {}, None, (5, 5))


def test_of_attention_the_figures_show_the_row_of_cls_in_the_last_block():
    _, batch = some(SHOWN + 3)
    generator = torch.Generator().manual_seed(0)
    attention = [torch.rand(SHOWN + 3, 4, 28, 28, generator=generator) for _ in range(3)]
    norms = [np.random.default_rng(n).random((SHOWN + 3, 25)) for n in range(3)]
    net = Looks(attention, query=torch.zeros(4))
    found = pictures(net, batch, subject_of(norms, batch.redundant, True), NONE)
    expected = sum(attention[-1][:SHOWN, head, 0] for head in range(4)) / 4
    assert torch.allclose(torch.from_numpy(found["cls"]), expected)
    assert np.array_equal(found["pool"], batch.images[:SHOWN].sum((1, 2)))
    assert np.array_equal(found["images"], batch.images[:SHOWN])
    assert np.array_equal(found["norms"], np.stack(norms)[:, :SHOWN])
    assert np.allclose(found["all_norms"], norms[-1]) and not found["where"].any()
    assert np.array_equal(found["all_redundant"], batch.redundant)
    without = pictures(Looks(attention), batch, subject_of(norms, batch.redundant), NONE)
    assert "cls" not in without and "pool" not in without


def test_where_outliers_are_is_told_of_each_place_over_scenes():
    _, batch = some(4)
    norms = np.ones((4, 25))
    norms[:3, 7], norms[0, 9] = 6.0, 5.0
    cutoff = SimpleNamespace(value=5.0)
    found = pictures(
        SimpleNamespace(query=None), batch, subject_of([0 * norms, norms], batch.redundant), cutoff
    )
    assert found["where"].tolist() == [0.75 if place == 7 else 0.0 for place in range(25)]


@pytest.mark.parametrize("shown", ["blanks", "registers"])
def test_of_heads_the_figures_show_the_one_that_gives_blanks_and_registers_most(shown):
    _, batch = some(4)
    quiet, loud = torch.zeros(4, 3, 28, 28), torch.zeros(4, 3, 28, 28)
    blanks = torch.cat([torch.zeros(4, 3), batch.redundant / 4], 1)
    registers = torch.zeros(28)
    registers[1:3] = 0.5
    quiet[:, 0] = 0.6 * blanks[:, None]
    quiet[:, 1, :, 0] = 1.0  # all of it to [CLS]
    quiet[:, 2, :, 3:] = (~batch.redundant / 21)[:, None]
    loud[:, 2] = (0.7 if shown == "blanks" else 0.3) * blanks[:, None]
    loud[:, 2] += (0.1 if shown == "blanks" else 0.5) * registers
    loud[:, 1, 5:9] = blanks[:, None]  # of a few queries alone
    loud[0, 0] = blanks[0]  # in one scene alone
    later = torch.zeros(4, 3, 28, 28)
    later[:, 0] = 0.65 * blanks[:, None]
    received = idle_attention(Looks([None, quiet, loud, later]), batch)
    assert torch.allclose(received, loud[:, 2].mean(1)) and received.shape == (4, 28)


# --- the whole


class Layers:
    """Three layers, of which [CLS] joins the last: patches have norm 1, 2 and 3 in them."""

    registers, query = 2, None
    regime = SimpleNamespace(grid=5)

    def __call__(self, images):
        patches = torch.nn.functional.normalize(torch.ones(len(images), 25, 4), dim=-1)
        front = torch.full((len(images), 2, 4), 50.0)
        layers = [torch.cat([front, n * patches], 1) for n in (1, 2, 3)]
        cls = images[:, :1, :4]
        layers[2] = torch.cat([cls, layers[2]], 1)
        return Seen(patches, patches, layers, None)

    def split(self, x, layer):
        return split_tokens(x, 2, cls=layer == 2)

    def knows(self, scenes):
        return scenes.marked

    def labels(self, scenes):
        return {"label1": scenes.label}

    def pixels(self, scenes):
        return scenes.images


def test_norms_are_of_each_layer_and_probes_get_the_last():
    _, batch = some(ONCE + 4)
    subject = view(Layers(), batch)
    assert [float(norms.mean()) for norms in subject.norms] == pytest.approx([1, 2, 3])
    assert all(norms.shape == (ONCE + 4, 25) for norms in subject.norms)
    assert np.array_equal(subject.last.cls, standardised(batch.images[:, 0, :4].numpy()))
    assert subject.last.registers.shape == (ONCE + 4, 2, 4)
    assert subject.embeddings.shape == (ONCE + 4, 25, 4)


@pytest.mark.parametrize(
    "settings, division, exchanged",
    [
        (dict(keys=1), False, False),
        (dict(keys=3, labels="each"), True, True),
        (dict(keys=3, labels="each", summary="late"), True, False),
    ],
)
def test_only_where_several_labels_are_asked_is_told_who_keeps_which(
    tmp_path, monkeypatch, settings, division, exchanged
):
    for name in ("ask_redundancy", "ask_label", "ask_local"):
        monkeypatch.setattr(module, name, lambda *_: None)
    knows = []
    monkeypatch.setattr(module, "hidden", lambda *told: knows.append(told[2]) or hidden(*told))
    regime, batch = some(200, **dict(summary="cls") | settings)
    torch.manual_seed(0)
    numbers = examine(TokenNet(regime, 2).eval(), batch, tmp_path / "maps.npz")["numbers"]
    assert len(knows) == 1 and torch.equal(knows[0], batch.marked)
    starts = {name.split("/")[0] for name in numbers}
    assert {"hidden", "hidden_local"} <= starts
    assert ("labels" in starts) == division and ("exchanged_registers" in starts) == exchanged
    with np.load(tmp_path / "maps.npz") as maps:
        assert ("told" in maps) == division
        assert {"cls", "attention", "norms"} <= set(maps)
