"""A training of the study goes by its regime: rates, decay, masks and when what is asked."""

import pytest
import torch

from registers.study.regime import Regime, TokenRegime
from registers.study.run import STEPS, VALIDATION, Training, apart, mask, optimizer_of, rate
from registers.study.sweep import Sweep, Variant
from registers.study.tokens_net import TokenNet

CPU = torch.device("cpu")
SMALL = dict(world="tokens", symbols=5, codes=3, width=16, steps=12, warmup=2, batch=8)


def training(seed: int = 0, **change) -> Training:
    variant = Variant(extends="small", hypothesis="H", predicts="", change=change)
    sweep = Sweep(
        bases={"small": dict(SMALL)},
        variants={"v": variant},
        hypotheses={"H": ""},
        registers=(0,),
        headline="v",
    )
    return Training(sweep, "v", 0, seed, CPU)


def test_the_rate_rises_at_first_and_then_stays_or_falls_to_nothing():
    regime = TokenRegime(lr=0.5, warmup=4, steps=8)
    assert [rate(regime, step) for step in (0, 1, 3, 4, 7)] == [0.125, 0.25, 0.5, 0.5, 0.5]
    falling = regime.model_copy(update={"schedule": "cosine"})
    rates = [rate(falling, step) for step in (3, 4, 5, 6, 8)]
    assert rates == pytest.approx([0.5, 0.5, 0.25 * (1 + 0.5**0.5), 0.25, 0.0], abs=1e-6)


def test_matrices_alone_are_decayed():
    regime = TokenRegime(summary="cls", biases=True, spare_key=True, weight_decay=0.3, beta2=0.9)
    net = TokenNet(regime, 2)
    optimizer = optimizer_of(net, regime)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in net.named_parameters():
        tokens = ("pos_embed", "cls_token", "reg_token", "spare", "bias")
        plain = name.endswith(tokens) or "norm" in name or parameter.ndim == 1
        assert decay[id(parameter)] == (0.0 if plain else 0.3), name
    assert optimizer.defaults["betas"] == (0.9, 0.9)
    sgd = optimizer_of(net, regime.model_copy(update={"optimizer": "sgd"}))
    assert isinstance(sgd, torch.optim.SGD) and sgd.defaults["momentum"] == 0.9


def test_masks_hide_their_share_and_repeat_by_their_seed():
    regime = TokenRegime(objective="dinov2", masked=0.3, batch=400)
    hidden, again, other = (mask(regime, seed, CPU) for seed in (3, 3, 4))
    assert hidden.shape == (400, 25) and hidden.float().mean() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(hidden, again) and not torch.equal(hidden, other)
    assert mask(TokenRegime(), 3, CPU) is None


def test_only_scenes_of_tokens_are_drawn_apart():
    assert apart(TokenRegime(alike=4, noise=0.5)) == TokenRegime(alike=1, noise=0.5)
    assert apart(Regime()) == Regime()


def test_each_step_of_each_seed_has_scenes_of_its_own(monkeypatch):
    drawn = []

    def kept(regime, count, seed, device):
        drawn.append((count, seed))
        raise InterruptedError

    monkeypatch.setattr("registers.study.run.scenes", kept)
    for seed, step in ((0, 0), (0, 5), (3, 5)):
        one = training(seed)
        one.step = step
        with pytest.raises(InterruptedError):
            one.update()
    assert drawn == [(8, 0), (8, 5), (8, 3 * STEPS + 5)]
    assert VALIDATION > 50 * STEPS  # no training reaches the scenes that are examined


@pytest.mark.parametrize("late", ["label", "local"])
@pytest.mark.parametrize("objective", ["tasks", "ibot", "dino"])
def test_what_is_asked_late_is_asked_from_its_step_on(late, objective):
    masked = dict(masked=0.3) if objective == "ibot" else {}
    one = training(objective=objective, summary="cls", **{f"{late}_from": 2}, **masked)
    net = getattr(one.net, "student", one.net)
    asked = []
    for _ in range(3):
        one.update()
        asked.append((net.label_asked, net.local_asked))
    both, one_alone = (True, True), (late == "local", late == "label")
    assert asked == [one_alone, one_alone, both]


def test_the_gradient_of_a_step_is_clipped_and_its_rate_that_of_the_step():
    one = training(optimizer="sgd", lr=0.5, warmup=4, clip=1e-3)
    before = torch.cat([p.detach().flatten().clone() for p in one.net.parameters()])
    one.update()
    after = torch.cat([p.detach().flatten() for p in one.net.parameters()])
    assert float((after - before).norm()) == pytest.approx(0.125 * 1e-3, rel=1e-2)


def test_the_teacher_is_told_how_far_the_training_is():
    one = training(objective="dinov2", masked=0.3, summary="cls")
    progress = []
    for _ in range(3):
        one.update()
        progress.append(float(one.net.progress))
    assert progress == pytest.approx([1 / 12, 2 / 12, 3 / 12])


def test_a_training_is_finite_while_loss_and_weights_are():
    one = training()
    assert one.finite
    one.loss = torch.tensor(float("nan"))
    assert not one.finite
    one.loss = torch.zeros(())
    one.net.label.weight.data[0, 0] = float("inf")
    assert not one.finite
