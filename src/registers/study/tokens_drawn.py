"""The token world's tasks on pictures of the built-in world (`registers.world`), things before a
background, in place of glyphs on a wall.

Of every patch two visual words are asked, its own and its right neighbour's: the nearest of some
cluster centres of patches (Sivic and Zisserman, 2003; BEiT, Bao et al., 2022, asks for such words
of masked patches). The label is the kind of the main thing. Redundant are patches without any
thing.
"""

from functools import cache

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor
from tqdm import tqdm

from registers.study.regime import TokenRegime
from registers.study.tokens_world import NOTHING, TokenScenes
from registers.world.dataset import scene

PATCH = 8  # pixels
CHANNELS = 3 * PATCH**2
SEED = 0  # of the built-in world's scenes
READ = 1000  # pictures whose patches make the words
UNSEEN = 10**9  # seeds from here on are pictures that no training sees (`run.VALIDATION`)
APART = 10**5  # pictures between two such seeds


def draw_drawn(regime: TokenRegime, batch: int, generator: torch.Generator) -> TokenScenes:
    """`batch` scenes: for training some of `regime.pictures`, by the generator's state; from seed
    `UNSEEN` on the validation split's next ones, each once. On the generator's device."""
    seed, grid = generator.initial_seed(), regime.grid
    if seed < UNSEEN:
        every = _some("train", 0, regime.pictures, grid)
        shape, device = (batch,), generator.device
        rows = torch.randint(regime.pictures, shape, generator=generator, device=device).cpu()
        pixels, things, label = (part[rows] for part in every)
    else:
        pixels, things, label = _some("val", (seed - UNSEEN) * APART, batch, grid)
    images = _patches(pixels)
    words = _words(images, codebook(regime.symbols, regime.pictures, grid))
    shown = _cells(things)  # (B, P, p * p)
    redundant = (shown == 0).all(-1)
    unasked = torch.zeros_like(redundant) if regime.background_asked else redundant
    own = words.masked_fill(unasked, NOTHING)
    right = own.view(batch, grid, grid).roll(-1, 2)
    right[:, :, -1] = NOTHING  # a photo is no ring
    right = right.flatten(1).masked_fill(unasked, NOTHING)
    parts = TokenScenes(
        images=images,
        again=images,
        label=label,
        labels=label[:, None],
        symbols=words,
        own=own,
        right=right,
        kept=own,
        redundant=redundant,
        triggered=torch.zeros_like(redundant),
        marked=(shown == 1 + label[:, None, None]).any(-1),
    )
    return TokenScenes(*(part.to(generator.device) for part in parts))


@cache
def codebook(words: int, pictures: int, grid: int) -> Tensor:
    """(V, C): cluster centres of the patches of the first pictures of the training split."""
    pixels, _, _ = _some("train", 0, pictures, grid)
    patches = _patches(pixels[:READ]).flatten(0, 1).numpy()
    means = KMeans(words, n_init=1, max_iter=50, random_state=0).fit(patches)
    return torch.from_numpy(means.cluster_centers_.astype(np.float32))


@cache
def _some(split: str, first: int, count: int, grid: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (N, H, W, 3) and, for each pixel, 0 or 1 + the kind of its thing (N, H, W), as
    bytes, and labels (N,). Drawn once in a process."""
    samples = []
    for index in tqdm(range(first, first + count), desc=f"draw {split}", mininterval=5):
        sample = scene(SEED, index, grid * PATCH, split)
        samples.append((np.asarray(sample.image), np.asarray(sample.mask), sample.label))
    pixels, things, labels = zip(*samples, strict=True)
    return (
        torch.from_numpy(np.stack(pixels)),
        torch.from_numpy(np.stack(things)),
        torch.tensor(labels),
    )


def _patches(pixels: Tensor) -> Tensor:
    """(B, H, W, 3) bytes -> (B, P, C), about -2 to 2."""
    colours = [_cells(pixels[..., channel]) for channel in range(3)]
    return torch.cat(colours, -1).float() / 64 - 2


def _cells(pixels: Tensor) -> Tensor:
    """(B, H, W) -> (B, P, p * p), row by row."""
    grid = pixels.shape[1] // PATCH
    tiles = pixels.view(len(pixels), grid, PATCH, grid, PATCH).transpose(2, 3)
    return tiles.reshape(len(pixels), grid * grid, PATCH * PATCH)


def _words(images: Tensor, centres: Tensor) -> Tensor:
    """(B, P): the nearest centre."""
    return torch.cdist(images, centres).argmin(-1)
