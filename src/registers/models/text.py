"""The text tower of CLIP: open_clip's transformer and tokenizer, and how a checkpoint holds it."""

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor, nn

# open_clip/tokenizer.py, SimpleTokenizer: 2 x 256 bytes, 48,894 merges, start and end of text
VOCABULARY = 49408


class TextTower(nn.Module):
    """open_clip's TextTransformer (causal, pooled at the end of text) with its byte-pair tokenizer.

    embed: E, the width shared with the images.
    context: most tokens of a text, start and end included; longer ones are cut.
    vocabulary: the token ids that have an embedding, None for all 49,408. With fewer, all other ids
        share the row of the padding token. Rows of absent tokens never get a gradient, so training
        is the same with and without them (AdamW treats each row on its own); they are just not
        stored, nor decayed.
    """

    def __init__(
        self,
        embed: int,
        context: int,
        width: int,
        depth: int,
        heads: int,
        vocabulary: Iterable[int] | None = None,
    ) -> None:
        super().__init__()
        from open_clip.transformer import TextTransformer

        self.context = context
        self.config = dict(embed=embed, context=context, width=width, depth=depth, heads=heads)
        self.compact = vocabulary is not None
        kept = torch.arange(VOCABULARY)
        if self.compact:  # with padding, start and end of text
            kept = torch.tensor(sorted({0, VOCABULARY - 2, VOCABULARY - 1, *vocabulary}))
        # keeps the order: end of text stays the highest, which is how open_clip finds it
        row = torch.zeros(VOCABULARY, dtype=torch.long)
        row[kept] = torch.arange(len(kept))
        self.register_buffer("vocabulary", kept if self.compact else None)
        self.register_buffer("row", row if self.compact else None, persistent=False)
        self.transformer = TextTransformer(
            context, len(kept), width, heads, depth, output_dim=embed
        )

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Text embeddings (B, E), not normalised, from the tokenizer's ids.

        Equals open_clip's forward: attention is causal and only the end of text is read, so what
        stands behind the longest text of the batch, and the final norm of all other tokens, is left
        out.
        """
        tower = self.transformer
        end = tokens_BT.argmax(dim=1)
        length = int(end.max()) + 1
        tokens = tokens_BT[:, :length]
        rows = self.row[tokens] if self.compact else tokens
        x = tower.token_embedding(rows) + tower.positional_embedding[:length]
        x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
        return tower.ln_final(x[torch.arange(len(x), device=x.device), end]) @ tower.text_projection

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids (n, context), padded with 0; a text seen before is not tokenized again."""
        return torch.stack([_tokens(text, self.context) for text in texts])

    def unseen(self, texts: Sequence[str]) -> list[str]:
        """The texts with a token that no caption of the training set had.

        Such a token has no embedding of its own; with the full vocabulary there is none.
        """
        if not self.compact:
            return []
        known = {*self.vocabulary.tolist()}
        return [text for text in texts if not {*_tokens(text, self.context).tolist()} <= known]

    @torch.no_grad()
    def encode(self, texts: Sequence[str], batch: int = 256) -> Tensor:
        """Embeddings (n, E) of any number of texts, not normalised, on the tower's device."""
        device = self.transformer.text_projection.device
        parts = [
            self(self.tokenize(texts[i : i + batch]).to(device))
            for i in range(0, len(texts), batch)
        ]
        return torch.cat(parts)


@cache
def tokenizer():
    """open_clip's SimpleTokenizer, read once per process."""
    from open_clip import SimpleTokenizer

    return SimpleTokenizer()


@lru_cache(maxsize=65536)
def _tokens(text: str, context: int) -> Tensor:
    return tokenizer()([text], context_length=context)[0]


def token_ids(texts: Iterable[str], context: int) -> set[int]:
    """All token ids that occur in the texts, as the tower sees them (cut to context)."""
    return {i for text in set(texts) for i in _tokens(text, context).tolist()}


def pack(projection: Tensor, text: TextTower) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a checkpoint holds of a CLIP besides its backbone: tensors, and facts for its card."""
    tensors = {"projection": projection}
    tensors |= {f"text.{name}": tensor for name, tensor in text.state_dict().items()}
    return tensors, {"text": text.config}


def unpack(tensors: dict[str, Tensor], card: dict[str, Any]) -> tuple[Tensor, TextTower]:
    """The inverse of `pack`: projection (D, E) and text tower, in evaluation mode.

    Raises ValueError where there is no text tower.
    """
    if "text" not in card:
        raise ValueError(
            f"checkpoint = {card.get('id', '?')}: it has no text tower; "
            "must be a backbone trained by openclip"
        )
    state = {
        name.removeprefix("text."): tensor
        for name, tensor in tensors.items()
        if name.startswith("text.")
    }
    kept = state.get("vocabulary")
    text = TextTower(**card["text"], vocabulary=None if kept is None else kept.tolist())
    text.load_state_dict(state)
    return tensors["projection"], text.eval().requires_grad_(False)
