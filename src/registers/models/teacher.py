"""The teacher of self-distillation: a frozen copy that follows the student.

It is the exponential moving average of the student's weights.
"""

import copy

import torch
from torch import nn


def frozen_copy(student: nn.Module) -> nn.Module:
    """The same weights, without gradients, in evaluation mode (no drop path)."""
    teacher = copy.deepcopy(student)
    return teacher.requires_grad_(False).eval()


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher = momentum x teacher + (1 - momentum) x student, for all parameters at once."""
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)
