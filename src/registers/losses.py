"""Losses of the recipes: pure functions of features and logits, in float32 whatever the precision of the model.

Under several processes each function returns the value of its process; the mean over processes is the value of the global
batch, because gradients are averaged over processes (DistributedDataParallel).
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

# --- between processes --------------------------------------------------------------------------------------------------


def processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_reduce_sum_(x: Tensor) -> Tensor:
    """Sum over all processes, in place and without gradient; x itself on one process."""
    if processes() > 1:
        dist.all_reduce(x)
    return x


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(processes())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        total = all_reduce_sum_(grad.contiguous().clone())
        return total.chunk(processes())[dist.get_rank()]


def gather(x: Tensor) -> Tensor:
    """(B, ...) of each process -> (processes x B, ...) in order of rank, with gradient; x itself on one process.

    The gradient is the sum over processes, so a loss that every process computes from the gathered features has, after the
    average over processes, exactly the gradient of one process with the whole batch (open_clip's --gather-with-grad).
    Every process must hold the same number of rows.
    """
    return _Gather.apply(x) if processes() > 1 else x


# --- image and text -----------------------------------------------------------------------------------------------------


def contrastive(image_BE: Tensor, text_BE: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE over all pairs of a (gathered) batch (open_clip/loss.py, ClipLoss).

    image_BE, text_BE: L2-normalised features of the same B pairs. scale: the factor on cosines, exp of the learnt logit scale.
    """
    logits_BB = scale.float() * image_BE.float() @ text_BE.float().T
    target = torch.arange(len(logits_BB), device=logits_BB.device)
    return (F.cross_entropy(logits_BB, target) + F.cross_entropy(logits_BB.T, target)) / 2
