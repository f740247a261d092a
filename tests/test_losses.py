"""Losses: closed forms, the property each is used for, libraries' values, two processes."""

import math
import os
import subprocess
import sys

import pytest
import torch
from lightly.loss import DINOLoss, IBOTPatchLoss, KoLeoLoss
from lightly.loss.swav_loss import sinkhorn
from open_clip.loss import ClipLoss
from torch.nn import functional as F

from registers.losses import contrastive, dino_loss, gather, ibot_loss, koleo, sinkhorn_knopp

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other

torch.manual_seed(0)


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


def test_contrastive_of_orthogonal_pairs_in_closed_form():
    pairs = 6
    scale = 3.0
    loss = contrastive(torch.eye(pairs), torch.eye(pairs), torch.tensor(scale))
    assert loss.item() == pytest.approx(math.log(1 + (pairs - 1) * math.exp(-scale)), rel=1e-6)


def test_contrastive_agrees_with_open_clip():
    image, text, scale = unit(8, 5).requires_grad_(), unit(8, 5), torch.tensor(14.3)
    ours, theirs = contrastive(image, text, scale), ClipLoss()(image, text, scale)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, image)[0], torch.autograd.grad(theirs, image)[0]
    )


def test_sinkhorn_knopp_shares_the_images_among_all_prototypes():
    favourite = 0.5 * torch.eye(10)[0]  # prototype 0 is everybody's
    logits = unit(40, 8) @ unit(10, 8).T + favourite
    q = sinkhorn_knopp(logits, temperature=0.1, iterations=200)
    torch.testing.assert_close(q.sum(dim=1), torch.ones(40))
    torch.testing.assert_close(q.sum(dim=0), torch.full((10,), 4.0), rtol=1e-3, atol=0)
    assert F.softmax(logits / 0.1, dim=1).sum(dim=0)[0] > 8  # which a softmax does not do


def test_sinkhorn_knopp_agrees_with_lightly_at_three_iterations():
    logits = unit(12, 6) @ unit(20, 6).T
    torch.testing.assert_close(
        sinkhorn_knopp(logits, 0.05), sinkhorn(logits, iterations=3, epsilon=0.05)
    )


def test_sinkhorn_knopp_of_nothing_is_nothing():
    assert sinkhorn_knopp(torch.zeros(0, 7), 0.04).shape == (0, 7)


def test_dino_loss_is_log_k_for_a_student_that_knows_nothing():
    targets = torch.rand(2, 3, 16).softmax(dim=-1)
    assert dino_loss(torch.zeros(5, 3, 16), targets).item() == pytest.approx(math.log(16), rel=1e-6)


def test_dino_loss_compares_different_views_only():
    student, targets = torch.randn(4, 3, 6), torch.randn(2, 3, 6).softmax(dim=-1)
    cross = [
        -(targets[t] * F.log_softmax(student[v] / 0.1, dim=-1)).sum(dim=-1).mean()
        for t in range(2)
        for v in range(4)
        if v != t
    ]
    torch.testing.assert_close(dino_loss(student, targets), torch.stack(cross).mean())
    with pytest.raises(ValueError, match="at least two views"):
        dino_loss(student[:1], targets[:1])


def test_dino_loss_agrees_with_lightly_and_with_the_split_into_local_and_global_terms():
    student, teacher = torch.randn(6, 3, 8), torch.randn(2, 3, 8)
    targets = F.softmax(teacher / 0.05, dim=-1)
    ours = dino_loss(student, targets)
    torch.testing.assert_close(
        ours,
        DINOLoss(output_dim=8, teacher_temp=0.05)(list(teacher), list(student), teacher_temp=0.05),
    )

    def official(
        views, probabilities
    ):  # dinov2/loss/dino_clstoken_loss.py: sum over pairs of the mean over images
        return sum(
            -(t * F.log_softmax(s / 0.1, dim=-1)).sum(-1).mean()
            for s in views
            for t in probabilities
        )

    local = 2 * 4  # ssl_meta_arch.py: number of terms of local crops
    whole = 2  # and of global crops
    swapped = targets.flip(0).flatten(0, 1)
    expected = official(student[2:], targets) / (local + whole) + official(
        [student[:2].flatten(0, 1)], [swapped]
    ) * 2 / (local + whole)
    torch.testing.assert_close(ours, expected)


def test_ibot_loss_weighs_images_not_patches():
    mask = torch.tensor([[True, False, False, False], [True, True, True, True], [False] * 4])
    targets = torch.eye(2)[torch.zeros(5, dtype=torch.long)]
    # image 0: log 2; image 1: 0; image 2: no mask
    student = torch.tensor([[0.0, 0.0]] + [[100.0, 0.0]] * 4)
    assert ibot_loss(student, targets, mask).item() == pytest.approx(math.log(2) / 3, rel=1e-6)


def test_ibot_loss_agrees_with_lightly():
    mask = torch.rand(5, 4, 4) < 0.4
    student, teacher = torch.randn(int(mask.sum()), 7), torch.randn(int(mask.sum()), 7)
    theirs = IBOTPatchLoss(output_dim=7, teacher_temp=0.06)(
        teacher, student, mask, teacher_temp=0.06
    )
    torch.testing.assert_close(
        ibot_loss(student, F.softmax(teacher / 0.06, dim=-1), mask.flatten(1)), theirs
    )


def test_koleo_in_closed_form_and_against_lightly():
    # on the circle, neighbours at sqrt(2)
    square = torch.tensor([[1.0, 0], [0, 2], [-3, 0], [0, -4]])
    assert koleo(square).item() == pytest.approx(-math.log(2) / 2, rel=1e-5)
    x = torch.randn(16, 6, requires_grad=True)
    ours, theirs = koleo(x), KoLeoLoss()(x)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, x)[0], torch.autograd.grad(theirs, x)[0])
    with pytest.raises(ValueError, match="KoLeo over 1 image"):
        koleo(x[:1])


def test_koleo_drives_features_apart():
    x = (torch.ones(8, 4) + 0.1 * torch.randn(8, 4)).requires_grad_()
    before = F.normalize(x, dim=-1).std(dim=0).mean().item()
    optimizer = torch.optim.SGD([x], lr=0.1)
    for _ in range(50):
        optimizer.zero_grad()
        koleo(x).backward()
        optimizer.step()
    assert F.normalize(x, dim=-1).std(dim=0).mean().item() > 3 * before


def test_one_process_gathers_itself():
    x = torch.randn(2, 3)
    assert gather(x) is x


PROCESS = """
import sys, torch, torch.distributed as dist
from torch.nn import functional as F
from registers.losses import contrastive, gather, koleo, sinkhorn_knopp
rank, world, port = map(int, sys.argv[1:])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
whole = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
weight = torch.randn(4, 5, generator=torch.Generator().manual_seed(2), requires_grad=True)
part = F.normalize(whole.chunk(world)[rank] @ weight, dim=-1)
shifted = part.roll(1, dims=-1)
loss = koleo(gather(part)) + contrastive(gather(part), gather(shifted), torch.tensor(5.0))
loss.backward()
dist.all_reduce(weight.grad)
uneven = part[:1] if rank else part  # processes may hold different numbers of masked patches
first, second = (F.normalize(chunk @ weight, dim=-1) for chunk in whole.chunk(world))
alone = torch.cat([first, second[:1]])
mine = sinkhorn_knopp(uneven, 0.1)
if rank == 0:
    dist.destroy_process_group()
    w = weight.detach().clone().requires_grad_()
    x = F.normalize(whole @ w, dim=-1)
    single = koleo(x) + contrastive(x, x.roll(1, dims=-1), torch.tensor(5.0))
    single.backward()
    torch.testing.assert_close(loss.detach(), single.detach())
    torch.testing.assert_close(weight.grad / world, w.grad)
    torch.testing.assert_close(mine, sinkhorn_knopp(alone.detach(), 0.1)[: len(mine)])
    print("equal")
"""


def test_two_processes_have_the_loss_and_gradient_of_one():
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, rank, "2", port],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in "01"
    ]
    answers = [rank.communicate(timeout=120) for rank in ranks]
    assert answers[0][0].strip() == b"equal", answers[0][1].decode()
