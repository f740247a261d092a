"""DINOv2: masks and registers do not meet; loss, schedules and groups are the official ones."""

import random
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from registers.data.sample import Sample
from registers.losses import dino_loss, ibot_loss, koleo, sinkhorn_knopp
from registers.methods.dinov2 import Dinov2, block_mask
from registers.methods.method import Progress
from registers.models.schedules import cosine
from registers.settings.backbone_id import BackboneId
from registers.settings.errors import ConfigError
from registers.settings.load import load_settings
from registers.settings.recipes import Dinov2Recipe, SizeSettings

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other


TINY = {"tiny": SizeSettings(width=32, depth=4, heads=2)}
HEADS = dict(prototypes=64, head_hidden=32, dino_bottleneck=64, ibot_bottleneck=32)
SIZES = dict(
    size="tiny",
    patch=4,
    steps=6,
    batch=8,
    lr=1e-3,
    warmup=2,
    layer_scale=0.1,
    local_crops=4,
    local_size=16,
    **HEADS,
)


def recipe(registers: int = 2, **changes) -> Dinov2:
    """A tiny DINOv2 on 32 pixels, in training mode."""
    loaded = load_settings({"scale": "smoke"})
    settings = loaded.model_copy(
        update={
            "image_size": 32,
            "sizes": TINY,
            "recipes": {"dinov2": Dinov2Recipe(**{**SIZES, **changes})},
        }
    )
    torch.manual_seed(0)
    return Dinov2(settings, BackboneId("dinov2", registers, 0), dataset=None).train()


def picture(seed: int, pixels: int = 40) -> Sample:
    """A gradient between two random colours."""
    low, high = np.random.default_rng(seed).uniform(0, 255, (2, 3))
    ramp = np.linspace(0, 1, pixels)[:, None, None]
    return Sample(
        Image.fromarray(
            np.broadcast_to(low + (high - low) * ramp, (pixels, pixels, 3)).astype(np.uint8)
        )
    )


def batch(method: Dinov2, size: int = 4) -> dict[str, torch.Tensor]:
    random.seed(0)
    examples = [method.augment(picture(i)) for i in range(size)]
    return {key: torch.stack([e[key] for e in examples]) for key in examples[0]}


def step(
    method: Dinov2,
    optimizer: torch.optim.Optimizer,
    examples: dict[str, torch.Tensor],
    progress: Progress,
) -> dict[str, torch.Tensor]:
    """One step as train.py takes it."""
    method.schedule(optimizer, progress)
    losses = method(examples, progress)
    optimizer.zero_grad()
    losses["loss"].backward()
    method.before_update(progress)
    optimizer.step()
    method.after_step(progress)
    return losses


# --- masks ----------------------------------------------------------------------------------------


def test_block_masks_never_exceed_their_count_and_come_in_blocks():
    random.seed(1)
    shares = []
    lonely = []
    for _ in range(300):
        count = random.randint(26, 128)  # 0.1 to 0.5 of 16 x 16
        mask = block_mask((16, 16), count)
        assert mask.sum() <= count
        shares.append(mask.sum() / count)
        padded = np.pad(mask, 1)
        neighbours = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
        lonely.append((mask & ~neighbours).sum() / mask.sum())
    assert np.mean(shares) > 0.9  # nearly all that was asked for
    assert np.mean(lonely) < 0.05  # at random places it would be (1 - 0.3) ** 4, a quarter
    assert not block_mask((8, 8), 0).any()


def test_one_of_the_two_global_crops_is_masked_at_a_ratio_of_a_tenth_to_a_half():
    method = recipe()
    random.seed(0)
    sample = picture(0)
    masks = torch.stack([method.augment(sample)["mask"] for _ in range(200)])  # (200, 2, P)
    counts = masks.sum(dim=-1)
    assert (counts.min(dim=1).values == 0).all()
    ratios = counts.max(dim=1).values / masks.shape[-1]
    assert ratios.max() <= 0.5
    assert 0.2 < ratios.mean() < 0.32  # uniform in 0.1 to 0.5, less what does not fit
    assert 0.4 < (counts[:, 0] > 0).float().mean() < 0.6  # which crop it is, is chance


@pytest.mark.parametrize("registers", [0, 1, 4])
def test_masks_and_registers_do_not_interfere(registers):
    from lightly.models.modules import (
        MaskedVisionTransformerTIMM,  # slow; the processes below need none of it
    )

    method = recipe(registers=registers).eval()
    student = method.student
    torch.nn.init.normal_(method.mask_token)
    torch.nn.init.normal_(student.vit.pos_embed)  # so that a shift by one token cannot pass
    if registers:
        torch.nn.init.normal_(student.vit.reg_token)
    images = torch.randn(3, 3, 32, 32)
    mask = torch.rand(3, 64) < 0.4
    token = torch.nn.Parameter(method.mask_token.detach().view(1, 1, -1))
    hidden = torch.cat([torch.zeros(3, 1 + registers, dtype=torch.bool), mask], dim=1)
    with torch.no_grad():
        ours = student(images, mask, method.mask_token)
        wrapped = MaskedVisionTransformerTIMM(
            student.vit, token, weight_initialization="skip", pos_embed_initialization="skip"
        )
        theirs = wrapped.encode(images, mask=hidden)
        entering = student.split(student.embed(images, mask, method.mask_token))
        unmasked = student.split(student.embed(images))
    torch.testing.assert_close(
        torch.cat([ours.cls[:, None], ours.registers, ours.patches], dim=1),
        theirs,
        rtol=1e-4,
        atol=1e-5,
    )
    assert ours.registers.shape[1] == registers and ours.patches.shape[1] == 64
    torch.testing.assert_close(entering.cls, unmasked.cls, rtol=0, atol=0)
    torch.testing.assert_close(entering.registers, unmasked.registers, rtol=0, atol=0)
    torch.testing.assert_close(entering.patches[~mask], unmasked.patches[~mask], rtol=0, atol=0)
    expected = (method.mask_token + student.vit.pos_embed[0]).expand(3, -1, -1)[mask]
    torch.testing.assert_close(entering.patches[mask], expected)


def test_what_the_mask_hides_cannot_reach_the_student():
    method = recipe().eval()
    images, mask = torch.randn(2, 3, 32, 32), torch.zeros(2, 64, dtype=torch.bool)
    mask[:, 9] = True  # the patch in row 1, column 1
    changed = images.clone()
    changed[:, :, 4:8, 4:8] += 5
    with torch.no_grad():
        a, b = (method.student(x, mask, method.mask_token) for x in (images, changed))
        teacher_a, teacher_b = (method.backbone(x) for x in (images, changed))
    torch.testing.assert_close(a.patches, b.patches)
    assert (teacher_a.patches - teacher_b.patches).abs().max() > 1e-3  # the teacher does see it


# --- loss -----------------------------------------------------------------------------------------


def test_the_loss_is_the_official_sum_of_its_three_terms():
    method = recipe()
    examples = batch(method)
    progress = Progress(1, 6)
    losses = method(examples, progress)
    assert losses["dino"] > 0 and losses["ibot"] > 0 and losses["koleo"].abs() > 0
    torch.testing.assert_close(
        losses["loss"], losses["dino"] + losses["ibot"] + 0.1 * losses["koleo"]
    )

    # the same from single views, with no batching of ours
    temperature = method.temperature(progress)
    views, masks = examples["global"].unbind(1), examples["mask"].unbind(1)
    with torch.no_grad():
        teacher = [method.backbone(view) for view in views]
        cls = sinkhorn_knopp(
            torch.cat([method.teacher_dino_head(t.cls) for t in teacher]), temperature
        ).unflatten(0, (2, -1))
        masked = torch.cat([t.patches[m] for t, m in zip(teacher, masks)])
        patches = sinkhorn_knopp(method.teacher_ibot_head(masked), temperature)
        student = [
            method.student(view, mask, method.mask_token) for view, mask in zip(views, masks)
        ]
        local = [method.student(view).cls for view in examples["local"].unbind(1)]
        dino = dino_loss(
            torch.stack([method.dino_head(c) for c in [*(s.cls for s in student), *local]]), cls
        )
        hidden = method.ibot_head(torch.cat([s.patches[m] for s, m in zip(student, masks)]))
        ibot = ibot_loss(hidden, patches, torch.cat(masks))
    torch.testing.assert_close(losses["dino"], dino, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(losses["ibot"], ibot, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        losses["koleo"], sum(koleo(s.cls) for s in student), rtol=1e-3, atol=1e-3
    )


def test_without_local_crops_the_two_global_ones_remain():
    method = recipe(local_crops=0)
    assert torch.isfinite(method(batch(method), Progress(0, 6))["loss"])


def test_learning_lowers_the_loss_and_spreads_the_features():
    method = recipe(lr=0.002, momentum=0.9, layer_scale=1.0)
    optimizer, examples = method.optimizer(), batch(method, 8)

    def spread() -> float:
        with torch.no_grad():
            return (
                F.normalize(method.backbone(examples["global"][:, 0]).cls, dim=-1)
                .std(dim=0)
                .mean()
                .item()
            )

    before, losses = spread(), []
    for i in range(25):
        losses.append(step(method, optimizer, examples, Progress(i + 5, 60))["loss"].item())
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.3
    assert spread() > before  # a collapsed teacher has none


# --- teacher, optimizer, schedules ----------------------------------------------------------------


def test_the_teacher_is_the_moving_average_of_the_student_and_learns_by_nothing_else():
    method = recipe(momentum=0.9)
    before = [p.clone() for p in method.backbone.parameters()]
    pairs = zip(before, method.student.parameters())
    assert all(torch.equal(teacher, student) for teacher, student in pairs)  # they start equal
    optimizer = method.optimizer()
    step(method, optimizer, batch(method), Progress(1, 6))
    momentum = cosine(1, 6, 0.9, 1.0)
    for old, teacher, student in zip(
        before, method.backbone.parameters(), method.student.parameters()
    ):
        torch.testing.assert_close(teacher, momentum * old + (1 - momentum) * student)
        assert teacher.grad is None
    mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert not mine & {id(p) for p in method.backbone.parameters()}
    assert not method.backbone.training and method.student.training


def test_registers_start_different_and_stay_different():
    method = recipe(registers=4)
    optimizer = method.optimizer()
    tokens = method.student.vit.reg_token
    assert tokens.std(dim=1).min() > 0  # zeros would stay equal forever (timm pull request 2229)
    for i in range(3):
        step(method, optimizer, batch(method), Progress(i + 1, 6))
    assert torch.pdist(method.backbone.vit.reg_token[0]).min() > 0


def test_parameter_groups_follow_the_official_rules():
    method = recipe()
    optimizer = method.optimizer()
    method.schedule(optimizer, Progress(4, 6))
    names = {id(p): n for n, p in method.named_parameters()}
    groups = {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}
    lr = cosine(4, 6, method.recipe.lr, 1e-6, method.recipe.warmup)
    decay = cosine(4, 6, 0.04, 0.2)
    cases = {
        "student.vit.patch_embed.proj.weight": (0.2 * lr, decay),
        "student.vit.patch_embed.proj.bias": (0.2 * lr, 0.0),
        "student.vit.blocks.0.attn.qkv.weight": (lr, decay),
        "student.vit.blocks.0.norm1.weight": (lr, 0.0),
        "student.vit.blocks.0.ls1.gamma": (lr, 0.0),
        "student.vit.cls_token": (lr, decay),
        "student.vit.reg_token": (lr, decay),
        "student.vit.pos_embed": (lr, decay),
        "mask_token": (lr, decay),
        "dino_head.last_layer.direction": (lr, decay),
    }
    for name, expected in cases.items():
        assert (groups[name]["lr"], groups[name]["weight_decay"]) == pytest.approx(expected), name
    trained = {n for n, p in method.named_parameters() if p.requires_grad}
    assert {*groups} == trained
    assert not any("teacher" in name or name.startswith("backbone") for name in trained)


def test_the_last_layer_stands_still_at_first():
    method = recipe(freeze_last_layer=2, warmup=0)
    optimizer, examples = method.optimizer(), batch(method)
    layer, other = method.dino_head.last_layer.direction, method.dino_head.mlp[0].weight
    for i in range(3):
        before, before_other = layer.clone(), other.clone()
        step(method, optimizer, examples, Progress(i, 6))
        assert torch.equal(layer, before) == (i < 2) and not torch.equal(other, before_other)


def test_schedules_hit_the_official_values():
    lr = [cosine(i, 100, 1.0, 0.1, warmup=10) for i in range(101)]
    assert (
        lr[0] == 0
        and lr[9] == 1
        and lr[10] == 1
        and lr[55] == pytest.approx(0.55)
        and lr[100] == 0.1
    )
    # CosineScheduler of dinov2/utils/utils.py, written with numpy
    places = np.arange(90)
    expected = np.concatenate(
        [np.linspace(0, 1, 10), 0.1 + 0.45 * (1 + np.cos(np.pi * places / 90))]
    )
    np.testing.assert_allclose(lr[:100], expected)
    method = recipe(temperature_warmup=3)
    assert [method.temperature(Progress(i, 6)) for i in range(5)] == pytest.approx(
        [0.04, 0.055, 0.07, 0.07, 0.07]
    )
    assert method.momentum(Progress(0, 6)) == 0.994 and method.momentum(Progress(6, 6)) == 1


def test_each_sub_module_is_clipped_for_itself():
    method = recipe()
    (100 * method(batch(method), Progress(0, 6))["loss"]).backward()
    small = method.ibot_head.mlp[0].bias.grad.norm()
    norms = method.before_update(Progress(0, 6))
    assert norms["gradient/backbone"] > 3
    clipped = torch.stack(
        [
            p.grad.norm()
            for p in [*method.student.parameters(), method.mask_token]
            if p.grad is not None
        ]
    ).norm()
    assert clipped.item() == pytest.approx(3, rel=1e-3)
    factor = min(1.0, 3 / norms["gradient/ibot_head"])
    assert method.ibot_head.mlp[0].bias.grad.norm().item() == pytest.approx(
        small.item() * factor, rel=1e-3
    )


def test_a_batch_of_one_is_refused_in_one_line():
    with pytest.raises(ConfigError, match=r"recipes.dinov2.batch = 1: must be at least 2"):
        recipe(batch=1)


PROCESS = """
import sys, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from test_dinov2 import batch, recipe
from registers.methods.method import Progress
rank, port = int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
method, progress = recipe(), Progress(1, 6)
whole = batch(method)
wrapped = torch.nn.parallel.DistributedDataParallel(method, find_unused_parameters=True)
losses = wrapped({k: v[[rank, 3 - rank]] for k, v in whole.items()}, progress)
losses["loss"].backward()
mean = losses["loss"].detach()
dist.all_reduce(mean)
dist.destroy_process_group()
if rank == 0:
    single = recipe()
    expected = single(whole, progress)["loss"]
    expected.backward()
    torch.testing.assert_close(mean / 2, expected.detach(), rtol=1e-5, atol=1e-5)
    for (name, a), b in zip(method.named_parameters(), single.parameters()):
        if b.grad is not None:
            atol = 1e-4 * float(b.grad.abs().max()) + 1e-7
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=atol, msg=name)
    print("equal")
"""


def test_two_processes_have_the_loss_and_gradients_of_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    here = str(Path(__file__).parent)
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, here, rank, port],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in "01"
    ]
    answers = [rank.communicate(timeout=120) for rank in ranks]
    assert answers[0][0].strip() == b"equal", answers[0][1].decode()
