"""The methods' losses in the study's ViT: they are those of the recipes, on what scenes show."""

from unittest import mock

import pytest
import torch
from torch.nn import functional as F

from registers.losses import contrastive
from registers.study.regime import TokenRegime, check_tokens
from registers.study.tokens_methods import MOMENTUM, TEMPERATURES, SelfNet, TextNet
from registers.study.tokens_world import codebook, draw_tokens
from registers.study.worlds import build_net

WALL = dict(appearance="glyphs", blanks=4, blanks_at="area", content="shared", mark=0.0, paper=0.3)
FOUR = dict(WALL, keys=4, labels="each", codes=32, summary="cls")
SELF = dict(WALL, objective="dinov2", summary="cls", grid=6, echo=True, masked=0.3)


def some(count: int = 12, registers: int = 0, **settings):
    regime = TokenRegime(**settings)
    check_tokens(regime, "regime")
    torch.manual_seed(0)
    net = build_net(regime, registers)
    return net, draw_tokens(regime, count, torch.Generator().manual_seed(2))


def test_rows_echo_and_views_differ_in_texture_and_grain_alone():
    _, scenes = some(**SELF)
    left, right = scenes.symbols.view(-1, 6, 6).split(3, dim=2)
    assert torch.equal(left, right)
    ink = ~scenes.redundant
    grain = (scenes.images - scenes.again)[ink].norm(dim=-1)
    assert grain.mean() == pytest.approx(0.3 * 2**0.5, rel=0.1)
    assert (scenes.images - scenes.again)[scenes.redundant].norm(dim=-1).min() > 0.8
    plain = some(**WALL)[1]
    assert plain.again is plain.images


def test_views_of_one_label_share_nothing_else():
    bare = dict(SELF, paper=0.0)
    _, scenes = some(**bare)
    _, label = some(**bare, views="label")
    assert torch.equal(scenes.images, label.images)
    for batch, same in ((scenes, True), (label, False)):
        walls = [view.amin(dim=-1) < -1e-3 for view in (batch.images, batch.again)]
        assert torch.equal(walls[0], batch.redundant)
        assert torch.equal(*walls) == same
    book = codebook(TokenRegime(**bare))
    parts = torch.cat([book.symbols, book.codes, book.keys[:1], book.trigger[None]])
    for view in (label.images, label.again):
        ink = view * (view.amin(dim=-1, keepdim=True) > -1e-3)
        told = torch.linalg.lstsq(parts.T, ink.flatten(0, 1).T).solution.T.view(12, 36, -1)
        holder = told[..., -2].argmax(1)
        codes = told[torch.arange(12), holder][:, 48:-2].argmax(1)
        assert torch.equal(codes, label.label)


def test_a_caption_tells_all_that_is_shown():
    net, scenes = some(**WALL, objective="openclip")
    ids = net.caption(scenes)
    assert ids.shape == (12, 28)
    assert len(ids.unique(dim=0)) == 12
    words = ids[:, 2:-1] - 1 - net.regime.classes
    plain = ~scenes.redundant & ~scenes.triggered
    assert torch.equal(words[plain], scenes.symbols[plain])
    assert torch.equal(words[scenes.triggered], scenes.symbols[scenes.triggered] + 48)
    assert (words[scenes.redundant] == 96).all()
    assert set(ids.unique().tolist()) <= set(net.text.vocabulary.tolist())


def test_captions_of_labels_tell_each_of_them_and_nothing_else():
    net, scenes = some(**FOUR, objective="captions")
    ids = net.caption(scenes)
    assert ids.shape == (12, 6)
    assert torch.equal(ids[:, 1:5] - 1, scenes.labels + 32 * torch.arange(4))
    assert int(ids[:, 1:5].max()) <= len(net.text.vocabulary) - 1
    whole, scenes = some(**FOUR, objective="openclip")
    assert torch.equal(whole.caption(scenes)[:, 1:5], ids[:, 1:5])
    assert whole.caption(scenes).shape == (12, 6 + 25)


def test_captions_of_labels_leave_the_local_tasks_as_they_are():
    net, scenes = some(**FOUR, objective="captions", label=0.5)
    with torch.no_grad():
        loss, told = net.losses(scenes)
        last = net(scenes.images).last
        pictures, texts = net.embeddings(last.cls, scenes)
        meet = contrastive(pictures, texts, net.logit_scale.exp())
        local = sum(task.loss for task in net.local(last.patches, scenes))
        assert torch.allclose(loss, 0.5 * meet + local)
        net.label_asked = False
        assert torch.allclose(net.losses(scenes)[0], local)
    assert set(told) == {"accuracy", "local", "triggered"}


def test_each_of_several_labels_is_asked_by_deit3_and_beside_ibot():
    net, scenes = some(**FOUR, objective="deit3")
    with torch.no_grad():
        loss, told = net.losses(scenes)
        logits = net.label(net(scenes.images).last.cls).view(12, 4, 32)
    each = [
        F.cross_entropy(logits[:, k], scenes.labels[:, k], label_smoothing=0.1) for k in range(4)
    ]
    assert float(loss) == pytest.approx(float(sum(each)) / 4, rel=1e-5)
    assert float(told["accuracy"]) == pytest.approx(
        float((logits.argmax(2) == scenes.labels).float().mean())
    )
    mask = torch.zeros(12, 25, dtype=torch.bool)
    mask[:, ::3] = True
    net, scenes = some(**FOUR, objective="ibot", masked=0.3, views="label")
    net.losses(scenes, mask)[0].backward()
    heads = net.student.label.weight.grad.view(4, 32, -1).abs().sum((1, 2))
    assert (heads > 0).all()


def test_pictures_and_captions_meet_in_the_recipes_loss():
    net, scenes = some(**WALL, objective="openclip", summary="cls")
    assert isinstance(net, TextNet)
    with torch.no_grad():
        loss, metrics = net.losses(scenes)
        pictures = F.normalize(net(scenes.images).last.cls @ net.projection, dim=-1)
        texts = F.normalize(net.text(net.caption(scenes)), dim=-1)
        assert torch.allclose(loss, contrastive(pictures, texts, net.logit_scale.exp()))
    assert 0 <= metrics["accuracy"] <= 1


def test_a_label_alone_moves_no_local_head():
    net, scenes = some(**WALL, objective="deit3", summary="cls")
    net.losses(scenes)[0].backward()
    assert net.label.weight.grad.any() and net.own.weight.grad is None


def test_the_student_sees_masks_and_the_teacher_follows():
    net, scenes = some(registers=2, **SELF)
    assert isinstance(net, SelfNet)
    mask = torch.rand(12, 36, generator=torch.Generator().manual_seed(1)) < 0.3
    loss, _ = net.losses(scenes, mask)
    loss.backward()
    assert net.mask_token.grad.any() and net.student.embed.weight.grad.any()
    assert all(p.grad is None for p in net.teacher.parameters())
    assert not torch.allclose(loss, net.losses(scenes, ~mask)[0])
    before = net.teacher.embed.weight.clone()
    with torch.no_grad():
        net.student.embed.weight += 1
    net.after_step(0.0)
    moved = net.teacher.embed.weight - before
    assert torch.allclose(moved, torch.full_like(moved, 1 - MOMENTUM), atol=1e-5)
    assert net.temperature == pytest.approx(TEMPERATURES[0])
    net.after_step(1.0)
    assert net.temperature == pytest.approx(TEMPERATURES[1])
    state = net.state_dict()
    again = build_net(net.regime, 2)
    again.load_state_dict(state)
    assert again.temperature == net.temperature
    with torch.no_grad():
        seen = net(scenes.images)
        assert torch.equal(seen.layers[-1], net.teacher(scenes.images).layers[-1])
        assert net.split(seen.layers[-1], 2).registers.shape == (12, 2, 48)


def test_paths_of_the_student_are_dropped_and_those_of_the_teacher_are_not():
    net, scenes = some(**SELF | dict(drop_path=0.5))
    net.train()
    with torch.no_grad():
        student, again = (net.student(scenes.images).layers[-1] for _ in range(2))
        teacher, taught = (net.teacher(scenes.images).layers[-1] for _ in range(2))
    assert not torch.equal(student, again) and torch.equal(teacher, taught)


def test_what_the_query_pools_can_stand_for_cls():
    net, scenes = some(registers=2, **SELF | dict(summary="query", prototypes=32))
    mask = torch.zeros(12, 36, dtype=torch.bool)
    mask[:, ::3] = True
    net.losses(scenes, mask)[0].backward()
    assert net.student.query.grad.any() and net.student.cls_token is None
    with torch.no_grad():
        weights = net.pool(net(scenes.images).last)
    assert weights.shape == (12, 2 + 36) and torch.equal(net.query, net.teacher.query)
    assert net.dino_head.last_layer.direction.shape[0] == 32


def test_each_half_of_dinov2_stands_in_for_its_half_of_the_tasks():
    mask = torch.zeros(12, 36, dtype=torch.bool)
    mask[:, ::3] = True
    moved = {}
    for objective, masks in (("dinov2", mask), ("dino", None), ("ibot", mask)):
        settings = SELF | dict(objective=objective, summary="query", prototypes=32, views="label")
        net, scenes = some(**settings | dict(masked=0.0 if masks is None else 0.3))
        net.losses(scenes, masks)[0].backward()
        weights = {
            "dino": net.dino_head.mlp[0].weight,
            "ibot": net.ibot_head.mlp[0].weight,
            "local": net.student.own.weight,
            "label": net.student.label.weight,
            "mask": net.mask_token,
        }
        moved[objective] = {name for name, weight in weights.items() if weight.grad is not None}
        with torch.no_grad():
            told = net.losses(scenes)[1]
        assert set(told) == {"dinov2": set(), "dino": {"local"}, "ibot": {"accuracy"}}[objective]
    assert moved == {
        "dinov2": {"dino", "ibot", "mask"},
        "dino": {"dino", "local"},
        "ibot": {"ibot", "label", "mask"},
    }


def test_ibot_may_ask_every_patch_of_a_view_with_masks():
    mask = torch.zeros(12, 36, dtype=torch.bool)
    mask[::2, :6] = True  # of the second views; the others see all, and nothing is asked of them
    for ibot, answers in (("masked", 6 * 6), ("every", 6 * 36)):
        net, scenes = some(**SELF, ibot=ibot)
        with mock.patch.object(net.ibot_head, "forward", wraps=net.ibot_head.forward) as head:
            net.losses(scenes, mask)
        assert len(head.call_args.args[0]) == answers


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(SELF, grid=5), "even where rows echo"),
        (dict(SELF, masked=0.0), "between 0 and 1 for dinov2"),
        (dict(SELF, objective="dino"), "0 otherwise"),
        (dict(SELF, objective="dino", masked=0.0, ibot="every"), "masked for dino"),
        (dict(WALL, masked=0.3), "between 0 and 1 for dinov2"),
    ],
)
def test_objectives_that_cannot_be_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        check_tokens(TokenRegime(**change), "regime")
