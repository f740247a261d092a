"""Who keeps which label, where a picture is asked several: [CLS], blanks, other patches, registers.

A label that [CLS] does not tell after one block and tells after the last came to it on the way.
"""

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import nn

from registers.models.sequence import Tokens
from registers.probes.token_class import draw_one
from registers.study.regime import CARRIERS
from registers.study.tokens_world import TokenScenes

SHRUNK = 1e-3  # towards the identity, of the covariance within a class
TOLD = 0.5  # accuracy from which a token counts as telling a label


@torch.no_grad()
def division(net: nn.Module, scenes: TokenScenes) -> np.ndarray:
    """(carriers, layers, labels): how often one token of a kind tells a label, after each block.

    Carriers, in the order of `CARRIERS`: [CLS]; a blank; another patch that shows no code, both
    drawn at random in each scene; the best register. NaN where a net has none. By a linear
    discriminant that is fitted to one half of the scenes and asked about the other.
    """
    labels_BK = scenes.labels.cpu().numpy()
    blank = scenes.redundant.cpu().numpy()
    other = ~blank & ~scenes.marked.cpu().numpy()
    rng = np.random.default_rng(0)
    places = [draw_one(mask, rng) for mask in (blank, other)]
    told = []
    for layer, x in enumerate(net(scenes.images).layers):
        kinds = carriers(net.split(x, layer), places)
        told.append([_best(tokens, labels_BK) for tokens in kinds])
    return np.moveaxis(np.array(told), 1, 0)


def carriers(tokens: Tokens, places: list[np.ndarray]) -> list[list[np.ndarray]]:
    """For each kind of `CARRIERS` the tokens, (B, D) each, of which the best counts."""
    patches = tokens.patches.cpu().numpy()
    drawn = [[patches[np.arange(len(patches)), place]] for place in places]
    cls = [] if tokens.cls is None else [tokens.cls.cpu().numpy()]
    return [cls, *drawn, list(tokens.registers.cpu().numpy().swapaxes(0, 1))]


def counts(told: np.ndarray) -> dict[str, float]:
    """Of how many labels a carrier tells more than half of the answers, after the first block
    ("labels/first/cls") and after the last ("labels/last/cls"); without kinds that there are not.
    """
    found = {}
    for name, of_layer in zip(CARRIERS, told, strict=True):
        if np.isnan(of_layer).any():
            continue
        for when, layer in (("first", 0), ("last", -1)):
            found[f"labels/{when}/{name}"] = float((of_layer[layer] > TOLD).sum())
    return found


def _best(tokens: list[np.ndarray], labels_BK: np.ndarray) -> np.ndarray:
    """(K,): of each label the accuracy of the token that tells it best."""
    if not tokens:
        return np.full(labels_BK.shape[1], np.nan)
    return np.max([[_accuracy(x, y) for y in labels_BK.T] for x in tokens], axis=0)


def _accuracy(x_BD: np.ndarray, label_B: np.ndarray) -> float:
    half = len(x_BD) // 2
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRUNK)
    return model.fit(x_BD[:half], label_B[:half]).score(x_BD[half:], label_B[half:])
