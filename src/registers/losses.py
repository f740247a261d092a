"""Losses of the recipes: pure functions of features and logits.

They are computed in float32 whatever the precision of the model; automatic casting is switched off
inside.

Under several processes each function returns the value of its process; the mean over processes is
the value of the global batch, because gradients are averaged over processes
(DistributedDataParallel).
"""

from collections.abc import Callable
from functools import wraps

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather
from torch.nn import functional as F


def _in_float32(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Switch autocast off: it would round the products of matrices to bfloat16."""

    @wraps(loss)
    def without_autocast(first: Tensor, *others, **options) -> Tensor:
        with torch.autocast(first.device.type, enabled=False):
            return loss(first, *others, **options)

    return without_autocast


# --- between processes ----------------------------------------------------------------------------


def processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_reduce_sum_(x: Tensor) -> Tensor:
    """Sum over all processes, in place and without gradient; x itself on one process."""
    if processes() > 1:
        dist.all_reduce(x)
    return x


def gather(x: Tensor) -> Tensor:
    """(B, ...) of each process -> (processes x B, ...) in order of rank, with gradient.

    On one process x itself. The gradient is the sum over processes, so a loss that every process
    computes from the gathered features has, after the average over processes, exactly the gradient
    of one process with the whole batch (open_clip's --gather-with-grad). Every process must hold
    the same number of rows.
    """
    return torch.cat(all_gather(x.contiguous())) if processes() > 1 else x


# --- image and text -------------------------------------------------------------------------------


@_in_float32
def contrastive(image_BE: Tensor, text_BE: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE over all pairs of a (gathered) batch (open_clip/loss.py, ClipLoss).

    image_BE, text_BE: L2-normalised features of the same B pairs.
    scale: the factor on cosines, exp of the learnt logit scale.
    """
    logits_BB = scale.float() * image_BE.float() @ text_BE.float().T
    target = torch.arange(len(logits_BB), device=logits_BB.device)
    return (F.cross_entropy(logits_BB, target) + F.cross_entropy(logits_BB.T, target)) / 2


# --- self-distillation ----------------------------------------------------------------------------


@_in_float32
@torch.no_grad()
def sinkhorn_knopp(logits_BK: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """Teacher probabilities (B, K) in which every prototype gets the same total weight.

    As dinov2/loss/dino_clstoken_loss.py: exp(logits / temperature), then `iterations` times each
    prototype's column scaled to 1/K and each row to 1/B, of the global batch (all sums run over all
    processes, whose B may differ); rows finally sum to 1. The heads' logits are cosines, so the
    exponential is safe.
    """
    q_BK = torch.exp(logits_BK.float() / temperature)
    images = all_reduce_sum_(torch.tensor(float(len(q_BK)), device=q_BK.device))
    q_BK /= all_reduce_sum_(q_BK.sum())
    for _ in range(iterations):
        q_BK /= all_reduce_sum_(q_BK.sum(dim=0)) * q_BK.shape[1]
        q_BK /= q_BK.sum(dim=1, keepdim=True) * images
    return q_BK * images


@_in_float32
def dino_loss(student_VBK: Tensor, targets_TBK: Tensor, temperature: float = 0.1) -> Tensor:
    """Cross-entropy of student and teacher, mean over all pairs of different views.

    student_VBK: logits of V views of B images, the first T of them the teacher's views.
    targets_TBK: the teacher's probabilities.

    DINO, eq. 3 (dino/main_dino.py, DINOLoss); in DINOv2 the sum of dino_local_crops_loss and
    dino_global_crops_loss (ssl_meta_arch.py).
    """
    log_p_VBK = F.log_softmax(student_VBK.float() / temperature, dim=-1)
    views = len(log_p_VBK)
    teachers = len(targets_TBK)
    pairs = teachers * (views - 1)
    if pairs < 1:
        raise ValueError(
            f"views = {views}, of the teacher {teachers}: "
            "must be at least two views, one of them the teacher's"
        )
    others_TBK = log_p_VBK.sum(dim=0) - log_p_VBK[:teachers]
    return -(targets_TBK * others_TBK).sum() / (pairs * log_p_VBK.shape[1])


@_in_float32
def ibot_loss(
    student_MK: Tensor, targets_MK: Tensor, mask_BP: Tensor, temperature: float = 0.1
) -> Tensor:
    """Cross-entropy on masked patches: mean within an image, then sum over images / B.

    student_MK, targets_MK: logits and probabilities of the M patches where mask_BP is True, in its
    order. B counts all images, also those without a mask, as dinov2/loss/ibot_patch_loss.py does.
    """
    counts_B = mask_BP.sum(dim=1)
    weights_M = torch.repeat_interleave(
        1 / counts_B.clamp(min=1), counts_B, output_size=len(student_MK)
    )
    entropy_M = -(targets_MK * F.log_softmax(student_MK.float() / temperature, dim=-1)).sum(dim=-1)
    return (entropy_M * weights_M).sum() / len(mask_BP)


@_in_float32
def koleo(x_BD: Tensor, eps: float = 1e-8) -> Tensor:
    """Kozachenko-Leonenko: minus the mean log distance to the nearest neighbour on the sphere.

    As dinov2/loss/koleo_loss.py. Raises ValueError for a single image, which has no neighbour.
    """
    if len(x_BD) < 2:
        raise ValueError(f"KoLeo over {len(x_BD)} images: must be at least 2")
    x_BD = F.normalize(x_BD.float(), dim=-1, eps=eps)
    with torch.no_grad():
        nearest_B = (x_BD @ x_BD.T).fill_diagonal_(-2).argmax(dim=1)
    return -torch.log(F.pairwise_distance(x_BD, x_BD[nearest_B], eps=eps) + eps).mean()
