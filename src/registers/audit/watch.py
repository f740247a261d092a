"""Watching one forward pass of any vision transformer, with fused attention left on.

Residual streams come from the blocks' outputs; neurons are the inputs of the MLP's last linear
layer; q, k and v are caught where attention takes them, in the call of PyTorch's
`scaled_dot_product_attention`: after biases, q_norm and k_norm and rotary positions, whichever a
model has. So there is one way for all families, and nothing of a family is written here again.

Letters: B images, L layers, N tokens, D channels, F neurons, H heads of d channels.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from registers.audit.anatomy import Anatomy, neuron_writer
from registers.audit.errors import AuditError

# Massive activations: above 100, and at least 1000 times the median magnitude of the hidden state
# (Sun et al., "Massive Activations in Large Language Models", arXiv 2402.17762, section 2).
MASSIVE_VALUE = 100.0
MASSIVE_RATIO = 1000.0
CHUNK = 2**24  # elements of attention held at once, 64 MB in float32


class Residuals(NamedTuple):
    """What is kept of the residual stream after each block.

    norms: (B, L, N), L2 over channels. normed: (B, L, N), the same behind the model's final norm
    (NaN where it has none). massive: (B, L, N), how many activations are massive. outputs:
    (B, N, D), the stream after the last block, before the final norm.
    """

    norms: Tensor
    normed: Tensor
    massive: Tensor
    outputs: Tensor


class Taken(NamedTuple):
    """What attention took in one block: q, k, v (B, H, N, d), what it adds to and scales logits by.

    bias: broadcastable to (B, H, N, N), or None. scale: the factor of q k^T.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    bias: Tensor | None
    scale: float


@torch.no_grad()
def residuals(anatomy: Anatomy, images_B3HW: Tensor) -> Residuals:
    """One forward pass. Raises AuditError where a block does not give (B, N, D)."""
    rows: list[tuple[Tensor, ...]] = []
    last: list[Tensor] = []

    def record(layer: int, output: Any) -> None:
        x = _tokens(anatomy, layer, output, images_B3HW)
        if rows and rows[0][0].shape[-1] != x.shape[1]:
            raise AuditError(
                f"block {layer + 1} has {x.shape[1]} tokens and block 1 {rows[0][0].shape[-1]}: "
                "patches are merged on the way, so that no token can be followed"
            )
        norms = torch.linalg.vector_norm(x.float(), dim=-1)
        normed = torch.full_like(norms, torch.nan)
        if anatomy.norm is not None:
            normed = torch.linalg.vector_norm(anatomy.norm(x).float(), dim=-1)
        rows.append((norms, normed, massive(x)))
        last[:] = [x]

    with _after_blocks(anatomy, record):
        try:
            anatomy.run(images_B3HW)
        except AssertionError as error:  # timm's, of a wrong size
            raise AuditError(f"size: {error}") from None
    if len(rows) != anatomy.depth:
        raise AuditError(
            f"{len(rows)} of {anatomy.depth} blocks ran: the model skips blocks in evaluation mode"
        )
    columns = [torch.stack(column, dim=1) for column in zip(*rows)]
    return Residuals(*columns, outputs=last[0])


def norms(anatomy: Anatomy, images_B3HW: Tensor, layer: int) -> Tensor:
    """(B, N) norms after block `layer`, from 1, where the forward pass ends."""
    return torch.linalg.vector_norm(stream(anatomy, images_B3HW, layer), dim=-1)


@torch.no_grad()
def stream(anatomy: Anatomy, images_B3HW: Tensor, layer: int) -> Tensor:
    """(B, N, D) tokens after block `layer`, from 1, in float32; the forward pass ends there."""
    kept: list[Tensor] = []

    def record(at: int, output: Any) -> None:
        if at == layer - 1:
            kept.append(_tokens(anatomy, at, output, images_B3HW).float())
            raise _Enough

    with _after_blocks(anatomy, record), suppress(_Enough):
        anatomy.run(images_B3HW)
    return kept[0]


def massive(x_BND: Tensor) -> Tensor:
    """(B, N) massive activations of each token; the median is over an image's whole state."""
    magnitudes = x_BND.abs().float()
    median_B = magnitudes.flatten(1).median(dim=1).values
    least_B = (MASSIVE_RATIO * median_B).clamp(min=MASSIVE_VALUE)
    return ((magnitudes > MASSIVE_VALUE) & (magnitudes >= least_B[:, None, None])).sum(-1)


def _tokens(anatomy: Anatomy, layer: int, output: Any, images: Tensor) -> Tensor:
    """The block's output as (B, N, D), checked against the grid."""
    x = output[0] if isinstance(output, tuple | list) else output
    shape = tuple(getattr(x, "shape", ()))
    if len(shape) != 3 or shape[0] != len(images):
        raise AuditError(
            f"block {layer + 1} gives {shape or type(x).__name__} for {len(images)} images: must "
            "be (images, tokens, channels); a map of channels has no patch tokens"
        )
    down, across = anatomy.grid(*images.shape[-2:])
    expected = len(anatomy.prefix) + down * across
    if shape[1] != expected:
        raise AuditError(
            f"block {layer + 1} has {shape[1]} tokens; must be {expected}: {len(anatomy.prefix)} "
            f"prefix tokens and {down}x{across} patches"
        )
    return x


@contextmanager
def _after_blocks(anatomy: Anatomy, record: Callable[[int, Any], None]) -> Iterator[None]:
    with ExitStack() as hooks:
        for layer, block in enumerate(anatomy.blocks):

            def hook(module, inputs, output, layer=layer) -> None:
                record(layer, output)

            hooks.callback(block.register_forward_hook(hook).remove)
        yield


class _Enough(Exception):
    """Ends a forward pass: the blocks that follow are not asked for."""


# --- neurons


@torch.no_grad()
def neurons(
    anatomy: Anatomy,
    images_B3HW: Tensor,
    layers: tuple[int, ...],
    take: Callable[[int, Tensor], Any],
) -> None:
    """Hand `take(layer, activations (B, N, F))` each asked block's neurons, in one forward pass.

    layers: from 0. Activations are after the non-linearity, in gated MLPs after the gate: the
    inputs of the second linear layer. Raises AuditError for an MLP of an unknown kind.
    """
    with ExitStack() as hooks:
        for layer in layers:

            def hook(module, inputs, layer=layer) -> None:
                take(layer, inputs[0])
                if layer == max(layers):
                    raise _Enough

            writer = neuron_writer(anatomy.blocks[layer])
            hooks.callback(writer.register_forward_pre_hook(hook).remove)
        with suppress(_Enough):
            anatomy.run(images_B3HW)


# --- attention


@torch.no_grad()
def taken(
    anatomy: Anatomy,
    images_B3HW: Tensor,
    layers: tuple[int, ...],
    take: Callable[[int, Taken], Any],
) -> None:
    """Hand `take(layer, Taken)` what each asked block's attention takes, in one forward pass.

    layers: from 0. Fused attention stays on; where a module has it switched off, it is switched on
    for this pass, which changes nothing but rounding. Raises AuditError where a block's attention
    does not go through `scaled_dot_product_attention` exactly once.
    """
    recorder = _Recorder(set(layers), take)
    with ExitStack() as stack:
        for layer, block in enumerate(anatomy.blocks):
            stack.callback(block.register_forward_pre_hook(recorder.entering(layer)).remove)
            stack.callback(block.register_forward_hook(recorder.leaving(layer)).remove)
            for part in block.modules():
                if getattr(part, "fused_attn", True) is False:
                    part.fused_attn = True
                    stack.callback(setattr, part, "fused_attn", False)
                if isinstance(part, nn.MultiheadAttention):
                    hook = part.register_forward_pre_hook(recorder.multihead, with_kwargs=True)
                    stack.callback(hook.remove)
        with suppress(_Enough), recorder:
            anatomy.run(images_B3HW)


class _Recorder(TorchFunctionMode):
    """Sees every call of `scaled_dot_product_attention` and knows in which block it is."""

    def __init__(self, layers: set[int], take: Callable[[int, Taken], Any]) -> None:
        super().__init__()
        self.layers = layers
        self.take = take
        self.layer: int | None = None
        self.calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and self.layer is not None:
            self._record(*_arguments(*args, **kwargs))
        return func(*args, **kwargs)

    def entering(self, layer: int):
        def hook(module, inputs) -> None:
            self.layer = layer if layer in self.layers else None
            self.calls = 0

        return hook

    def leaving(self, layer: int):
        def hook(module, inputs, output) -> None:
            if self.layer is not None and self.calls != 1:
                raise AuditError(
                    f"block {layer + 1}, {type(module).__name__}: its attention calls "
                    f"scaled_dot_product_attention {self.calls} times; must be once, so that one "
                    "softmax belongs to each head"
                )
            if self.layer == max(self.layers):
                raise _Enough
            self.layer = None

        return hook

    def multihead(self, module: nn.MultiheadAttention, args, kwargs) -> None:
        """torch's own module (open_clip) projects and attends inside one call: project again."""
        if self.layer is None:
            return
        query, key, value = (*args, *(kwargs[n] for n in ("query", "key", "value")[len(args) :]))
        if not module.batch_first or module.in_proj_weight is None:
            raise AuditError("attention: must be batch first, with one matrix for q, k and v")
        weights = module.in_proj_weight.chunk(3)
        biases = (None,) * 3 if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
        heads = module.num_heads
        q, k, v = (
            F.linear(x, weight, bias).unflatten(-1, (heads, -1)).transpose(1, 2)
            for x, weight, bias in zip((query, key, value), weights, biases)
        )
        self._record(Taken(q, k, v, kwargs.get("attn_mask"), q.shape[-1] ** -0.5), False)

    def _record(self, values: Taken, causal: bool) -> None:
        self.calls += 1
        if causal:
            raise AuditError("attention is causal: not a vision transformer that can be audited")
        self.take(self.layer, values)


def _arguments(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_):
    """The arguments of `scaled_dot_product_attention`, and whether it is causal."""
    bias = attn_mask
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        bias = torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill_(~attn_mask, -torch.inf)
    return Taken(q, k, v, bias, q.shape[-1] ** -0.5 if scale is None else scale), is_causal


def attention_rows(values: Taken, queries: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of softmax(scale q k^T + bias) for some queries, in chunks that fit in memory.

    queries: (Q,) token indices. Yields (indices of the chunk, rows (B, H, chunk, N)) in float32 at
    least.
    """
    dtype = torch.promote_types(values.q.dtype, torch.float32)
    batch, heads, tokens, _ = values.k.shape
    k = values.k.to(dtype).transpose(-1, -2)
    for chunk in queries.split(max(1, CHUNK // (batch * heads * tokens))):
        logits = values.q[:, :, chunk].to(dtype) @ k * values.scale
        if values.bias is not None:
            bias = values.bias.to(dtype)
            bias = bias.expand(*bias.shape[:-2], tokens, tokens)
            logits = logits + bias[..., chunk, :]
        yield chunk, logits.softmax(dim=-1)
