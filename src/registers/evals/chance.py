"""Chance: what guessing reaches, measured. One definition for every classification.

The most frequent class of the very images (or pixels) that are counted, always guessed. One over
the number of classes would call a model better than chance that has learnt nothing but which class
is frequent. Object discovery guesses the box of the whole image (`lost_search.Counts.whole`).
"""

import numpy as np


def most_frequent(labels: np.ndarray, guesses: int = 1) -> float:
    """Share of the labels that the most frequent classes hit. guesses: how many are allowed.

    Raises ValueError where there is no label.
    """
    _, counts = np.unique(np.asarray(labels), return_counts=True)
    if not len(counts):
        raise ValueError("chance of 0 labels: at least one must be counted")
    return float(np.sort(counts)[-guesses:].sum() / counts.sum())
