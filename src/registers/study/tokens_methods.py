"""The losses of the paper's three methods on scenes of the token world, in the study's own ViT.

What keeps a method from showing the effect here, its loss or its ViT? In this file the ViT is the
one in which the effect was found, and the losses are those of the recipes (`registers.losses`)
without their augmentations: scenes are drawn, not cropped. DeiT-III is asked for the labels;
OpenCLIP gets a caption that tells all that a scene shows; DINOv2 two views that differ in textures
and grain, and masks. Half of the tasks can be left as it is, and the other half be asked by a
method: the labels by DINO, or by OpenCLIP with captions that tell them alone, the local tasks by
iBOT.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registers.losses import contrastive, dino_loss, ibot_loss, koleo, sinkhorn_knopp
from registers.models.heads import DinoHead
from registers.models.sequence import Tokens
from registers.models.teacher import follow, frozen_copy
from registers.models.text import VOCABULARY, TextTower
from registers.study.net import Seen
from registers.study.regime import TokenRegime
from registers.study.tokens_net import TokenNet, local_accuracies
from registers.study.tokens_world import TokenScenes

SMOOTHING = 0.1  # DeiT-III
SCALE_START, SCALE_MOST = math.log(1 / 0.07), math.log(100)  # OpenCLIP
EMBED, TEXT_WIDTH, TEXT_DEPTH, TEXT_HEADS = 64, 64, 2, 4  # as at scale laptop
HEAD_HIDDEN, BOTTLENECK = 128, 64  # as at scale laptop
MOMENTUM = 0.99  # of the teacher at the start, rising to 1; as at scale laptop
TEMPERATURES, WARM = (0.04, 0.07), 0.3  # of the teacher; the share of steps over which it rises
KOLEO_WEIGHT = 0.1
TOLD = {"dinov2": (), "dino": ("local",), "ibot": ("accuracy",)}  # answers that a loss asks for


class LabelNet(TokenNet):
    """DeiT-III: the labels alone, with label smoothing."""

    def losses(
        self, scenes: TokenScenes, mask_BP: None = None, hidden_BP: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and the labels' accuracy."""
        logits = self.answers(self.summary(self(scenes.images, hidden_BP).last), scenes)
        loss = F.cross_entropy(logits, scenes.labels, label_smoothing=SMOOTHING)
        return loss, {"accuracy": (logits.argmax(1) == scenes.labels).float().mean()}


class TextNet(TokenNet):
    """OpenCLIP: pictures and captions of a batch find each other. Captions of the labels alone
    leave the local tasks as they are."""

    def __init__(self, regime: TokenRegime, registers: int) -> None:
        super().__init__(regime, registers)
        self.tells_all = regime.objective == "openclip"
        words, length = regime.classes, regime.asked + 2  # the start and the end of text
        if self.tells_all:
            words += 2 * regime.symbols + 1
            length += regime.grid**2
        shape = (EMBED, length, TEXT_WIDTH, TEXT_DEPTH, TEXT_HEADS)
        self.text = TextTower(*shape, vocabulary=range(1, words + 1))
        self.projection = nn.Parameter(torch.randn(regime.width, EMBED) / regime.width**0.5)
        self.logit_scale = nn.Parameter(torch.tensor(SCALE_START))

    def caption(self, scenes: TokenScenes) -> Tensor:
        """(B, T), ids for the text tower: a word for each label, of several in their order, then
        one for each patch, row by row, unless labels are all that is told. A symbol with a trigger
        and one without are two words; all blanks are one."""
        number = torch.arange(self.regime.asked, device=scenes.labels.device)
        labels = scenes.labels + self.regime.codes * number  # each has words of its own
        start = torch.full_like(labels[:, :1], VOCABULARY - 2)
        told = [start, 1 + labels]
        if self.tells_all:
            first = 1 + self.regime.classes
            words = first + scenes.symbols + self.regime.symbols * scenes.triggered
            told.append(words.masked_fill(scenes.redundant, first + 2 * self.regime.symbols))
        return torch.cat([*told, start + 1], 1)

    def losses(
        self, scenes: TokenScenes, mask_BP: None = None, hidden_BP: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss; as "accuracy" the share of pictures that find their caption in the batch, and
        the accuracies of local tasks, where they are asked."""
        last = self(scenes.images, hidden_BP).last
        picture_BE, text_BE = self.embeddings(self.summary(last), scenes)
        loss = contrastive(picture_BE, text_BE, self.logit_scale.clamp(0, SCALE_MOST).exp())
        accuracies = {"accuracy": _found(picture_BE, text_BE)}
        if self.tells_all:
            return loss, accuracies
        tasks = self.local(last.patches, scenes)
        loss = self.regime.label * self.label_asked * loss + sum(task.loss for task in tasks)
        return loss, accuracies | local_accuracies(tasks, scenes)

    def embeddings(self, summary_BD: Tensor, scenes: TokenScenes) -> tuple[Tensor, Tensor]:
        """Of pictures and of their captions, (B, E) each, norm 1."""
        picture_BE = F.normalize(summary_BD @ self.projection, dim=-1)
        return picture_BE, F.normalize(self.text(self.caption(scenes)), dim=-1)

    def unread(self, scenes: TokenScenes, unread_BP: Tensor) -> float:
        """The share of pictures that find their caption where the query leaves patches out."""
        summary_BD = self.summary(self(scenes.images).last, unread_BP)
        return float(_found(*self.embeddings(summary_BD, scenes)))


def _found(picture_BE: Tensor, text_BE: Tensor) -> Tensor:
    """The share of pictures whose own caption is the nearest."""
    own = torch.arange(len(text_BE), device=text_BE.device)
    return ((picture_BE @ text_BE.T).argmax(1) == own).float().mean()


class SelfNet(nn.Module):
    """DINOv2: a student learns prototypes of masked patches, and of [CLS] or of what a query pools
    in its place, from its own moving average, the teacher, which is what is examined."""

    asked = ""  # no loss has an accuracy

    def __init__(self, regime: TokenRegime, registers: int) -> None:
        super().__init__()
        self.regime, self.registers = regime, registers
        self.student = TokenNet(regime, registers)
        self.mask_token = nn.Parameter(torch.zeros(regime.width))
        shape = (regime.width, HEAD_HIDDEN, BOTTLENECK, regime.prototypes)
        self.dino_head, self.ibot_head = DinoHead(*shape), DinoHead(*shape)
        self.teacher = frozen_copy(self.student)
        self.teacher_dino_head = frozen_copy(self.dino_head)
        self.teacher_ibot_head = frozen_copy(self.ibot_head)
        self.register_buffer("progress", torch.zeros(()))  # a resumed training needs it

    def losses(
        self, scenes: TokenScenes, mask_BP: Tensor | None = None, hidden_BP: None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """DINO + iBOT + 0.1 KoLeo; at a look, without gradients, the accuracy of what is asked of
        a label or of local answers in place of one of them."""
        if not torch.is_grad_enabled():
            told = TOLD[self.regime.objective]
            return torch.zeros(()), {name: self.teacher.losses(scenes)[1][name] for name in told}
        views = torch.cat([scenes.images, scenes.again])
        masks = None if mask_BP is None else _by_turns(mask_BP)
        with torch.no_grad():
            taught = self.teacher(views).last
        seen = self.student(views, None, masks, self.mask_token).last
        summary = self.student.summary(seen)

        # --- what the whole scene is asked
        if self.regime.objective == "ibot":
            weight = self.regime.label * self.student.label_asked
            answers = torch.cat([self.student.answers(part, scenes) for part in summary.chunk(2)])
            loss = weight * F.cross_entropy(answers, scenes.labels.repeat(2, 1))
        else:
            with torch.no_grad():
                whole = self.teacher_dino_head(self.teacher.summary(taught))
                whole = sinkhorn_knopp(whole, self.temperature)
            logits = self.dino_head(summary).unflatten(0, (2, -1))
            loss = dino_loss(logits, whole.unflatten(0, (2, -1)))

        # --- what patches are asked
        if masks is None:
            first = seen.patches[: len(scenes.images)]  # the other view may show other symbols
            loss = loss + sum(task.loss for task in self.student.local(first, scenes))
        else:
            asked = masks
            if self.regime.ibot == "every":
                asked = masks.any(1, keepdim=True).expand_as(masks)
            with torch.no_grad():
                patches = self.teacher_ibot_head(taught.patches[asked])
                patches = sinkhorn_knopp(patches, self.temperature)
            loss = loss + ibot_loss(self.ibot_head(seen.patches[asked]), patches, asked)

        if self.regime.objective == "ibot":
            return loss, {}
        return loss + KOLEO_WEIGHT * sum(koleo(view) for view in summary.chunk(2)), {}

    def train(self, mode: bool = True) -> "SelfNet":
        """The teacher never drops a path (dinov2/models/__init__.py builds it with rate 0)."""
        super().train(mode)
        self.teacher.eval()
        return self

    @property
    def temperature(self) -> float:
        start, end = TEMPERATURES
        return start + (end - start) * min(1.0, float(self.progress) / WARM)

    def after_step(self, progress: float) -> None:
        """The teacher follows the student. progress: share of the steps that are done."""
        self.progress.fill_(progress)
        momentum = 1 - (1 - MOMENTUM) * 0.5 * (1 + math.cos(math.pi * progress))
        follow(self.teacher, self.student, momentum)
        follow(self.teacher_dino_head, self.dino_head, momentum)
        follow(self.teacher_ibot_head, self.ibot_head, momentum)

    # --- what the signs and the examination ask of a net, of the teacher

    def forward(self, images_BPC: Tensor, hidden_BP: Tensor | None = None) -> Seen:
        return self.teacher(images_BPC, hidden_BP)

    observe = forward

    @property
    def query(self) -> Tensor | None:
        return self.teacher.query

    def pool(self, last: Tokens) -> Tensor:
        return self.teacher.pool(last)

    def split(self, x_BND: Tensor, layer: int) -> Tokens:
        return self.teacher.split(x_BND, layer)

    def labels(self, scenes: TokenScenes) -> dict[str, Tensor]:
        return self.teacher.labels(scenes)

    def knows(self, scenes: TokenScenes) -> Tensor:
        return self.teacher.knows(scenes)

    def pixels(self, scenes: TokenScenes) -> Tensor:
        return self.teacher.pixels(scenes)


def _by_turns(mask_BP: Tensor) -> Tensor:
    """(2 B, P): of the two views of a scene one is masked, the first and the second by turns."""
    odd = (torch.arange(len(mask_BP), device=mask_BP.device) % 2 == 1)[:, None]
    return torch.cat([mask_BP & odd, mask_BP & ~odd])
