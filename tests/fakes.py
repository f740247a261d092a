"""A backbone whose tokens carry known truths, and its data set: the planted truth for every probe.

FakeDataset: images of `size` pixels in patches of 4. Each patch holds 48 numbers (4 x 4 pixels x 3
colours, flattened as row, column, colour). The first `classes` of them are the image's class,
one-hot (255 or 0), the same in all patches; number 11 is the *mark* (255 where an outlier is
planted, else 0); the rest is random texture. `dataset.marks[i]` is the (P,) mask of planted
outliers, `sample.label` the class, and attribute "parity" the class modulo 2.

fake_backbone(...): a real timm ViT (so `capture`, hooks and attention work as they do anywhere)
whose blocks are the identity, with the weights set by hand and one last step. D = 48 pixels + P
positions + 8 for the class. What its output (before the final norm) holds:
- normal patches: their pixels (dims 0..47, class numbers and mark blanked) and a one-hot position
  (dims 48..48+P); no class;
- marked patches (outliers): the class, one-hot, in the last 8 dims and nothing else, at `ratio`
  times the typical norm of a patch;
- [CLS] and registers: the class, one-hot, in the last 8 dims (norm 1), register r also 0.1 r in
  dim 0.

So the class is 100 % linearly decodable from [CLS], registers and outliers, and at chance from
normal patches; position is 100 % decodable from normal patches and at chance from outliers; pixels
likewise. With forget=False outliers are the normal token, pixels and position included, scaled to
`ratio` times the typical norm.

Patch embeddings are the normalised pixels. Use MEAN and STD (0.5) as normalisation: pixels become
-1..1.
"""

from types import MethodType

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from registers.data.sample import Sample
from registers.models.backbone import Architecture, Backbone, build

PATCH = 4
PIXELS = 3 * PATCH**2  # numbers in a patch
CLASS_DIMS = 8
MARK = 11  # which of them says "outlier"
MEAN = STD = (0.5, 0.5, 0.5)


class FakeDataset:
    """Images with a known class and known outlier patches. outliers: share of marked patches."""

    def __init__(
        self,
        images: int = 64,
        size: int = 16,
        classes: int = 4,
        outliers: float = 0.1,
        seed: int = 0,
    ) -> None:
        assert classes <= CLASS_DIMS
        rng = np.random.default_rng(seed)
        self.size, self.grid = size, size // PATCH
        self.labels = rng.integers(0, classes, images)
        self.marks = rng.random((images, self.grid**2)) < outliers
        self.classes = tuple(f"class {c}" for c in range(classes))
        self.attributes = {"parity": ("even", "odd")}
        self.fingerprint = f"fake-{images}-{size}-{classes}-{outliers}-{seed}"
        self.seed = seed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        rng = np.random.default_rng((self.seed, index, 1))
        patches = rng.integers(0, 256, (self.grid**2, PIXELS), dtype=np.uint8)
        patches[:, :CLASS_DIMS] = 0
        patches[:, self.labels[index]] = 255
        patches[:, MARK] = 255 * self.marks[index]
        g = self.grid
        pixels = (
            patches.reshape(g, g, PATCH, PATCH, 3)
            .transpose(0, 2, 1, 3, 4)
            .reshape(g * PATCH, g * PATCH, 3)
        )
        label = int(self.labels[index])
        return Sample(
            Image.fromarray(pixels),
            name=f"fake {index}",
            label=label,
            attributes={"parity": label % 2},
        )

    def batch(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Normalised images (B, 3, H, W)."""
        images = [
            np.asarray(self[i].image) for i in range(start, len(self) if stop is None else stop)
        ]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def fake_backbone(
    registers: int = 0,
    size: int = 16,
    ratio: float = 10.0,
    forget: bool = True,
    name: str = "dinov2-r0-s0",
) -> Backbone:
    """A backbone with planted truths for `FakeDataset(size=size)`; see above."""
    patches = (size // PATCH) ** 2
    width = PIXELS + patches + CLASS_DIMS  # 72 at 16 pixels
    backbone = build(
        Architecture(width=width, depth=2, heads=2, patch=PATCH, image=size, registers=registers),
        name=name,
        normalization=(MEAN, STD),
    )
    vit = backbone.vit
    with torch.no_grad():
        for block in vit.blocks:  # the residual branches add nothing
            for linear in (block.attn.proj, block.mlp.fc2):
                linear.weight.zero_()
                linear.bias.zero_()
            torch.nn.init.normal_(
                block.attn.qkv.weight, std=0.2, generator=torch.Generator().manual_seed(0)
            )
        filters = (
            torch.eye(PIXELS).view(PIXELS, PATCH, PATCH, 3).permute(0, 3, 1, 2)
        )  # pixel by pixel: row, column, colour
        vit.patch_embed.proj.weight.zero_()
        vit.patch_embed.proj.weight[:PIXELS] = filters
        vit.patch_embed.proj.bias.zero_()
        vit.cls_token.zero_()
        vit.pos_embed.zero_()
        vit.pos_embed[0, :, PIXELS : PIXELS + patches] = torch.eye(patches)
        if registers:
            vit.reg_token.zero_()
            vit.reg_token[0, :, 0] = 0.1 * torch.arange(registers)

    last = vit.blocks[-1]
    plain = last.forward

    def forward(self, x: Tensor) -> Tensor:
        x = plain(x).clone()
        patch = x[:, 1 + registers :]
        marked = patch[..., MARK : MARK + 1] > 0
        code = patch.mean(1)[:, :CLASS_DIMS]
        code = torch.nn.functional.one_hot(code.argmax(1), CLASS_DIMS).to(x.dtype)  # (B, 8)
        patch = patch.clone()
        patch[..., :CLASS_DIMS] = 0
        patch[..., MARK] = 0
        typical = torch.linalg.vector_norm(patch, dim=-1).median()
        if forget:
            outlier = torch.nn.functional.pad(code, (width - CLASS_DIMS, 0))[:, None] * (
                ratio * typical
            )
        else:
            outlier = (
                patch / torch.linalg.vector_norm(patch, dim=-1, keepdim=True) * (ratio * typical)
            )
        x[:, 1 + registers :] = torch.where(marked, outlier, patch)
        x[:, : 1 + registers, -CLASS_DIMS:] = code[:, None]
        return x

    last.forward = MethodType(forward, last)
    return backbone.eval().requires_grad_(False)
