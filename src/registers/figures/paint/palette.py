"""Colours that are easy to tell apart, for any number of classes."""

from functools import cache

import numpy as np

STEPS = np.linspace(0, 1, 11)  # of red, green and blue among which colours are chosen
LIGHTNESS = (30, 85)  # of CIELAB: neither black nor white
CHROMA = 75  # of CIELAB at most: nothing garish
START = (0.9, 0.9, 0.9)  # the grey of what is not counted, which no class should resemble


@cache
def distinct(count: int) -> np.ndarray:
    """(count, 3) colours from 0 to 1, each as far as possible from those before it.

    The choice is greedy in CIELAB, where distances are about those that people see (Glasbey et al.,
    Color Research and Application 32, 2007). A class keeps its colour whatever the count.
    """
    candidates = np.stack(np.meshgrid(STEPS, STEPS, STEPS), -1).reshape(-1, 3)
    places = _lab(candidates)
    visible = (places[:, 0] > LIGHTNESS[0]) & (places[:, 0] < LIGHTNESS[1])
    visible &= np.linalg.norm(places[:, [1, 2]], axis=1) < CHROMA
    candidates = candidates[visible]
    places = places[visible]

    nearest = np.linalg.norm(places - _lab(np.array([START])), axis=1)
    order = []
    for _ in range(count):
        order.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(places - places[order[-1]], axis=1))
    return candidates[order]


def _lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of sRGB colours (N, 3), white point D65 (IEC 61966-2-1, CIE 15)."""
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = linear @ to_xyz.T / to_xyz.sum(axis=1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    lightness = 116 * f[:, 1] - 16
    return np.stack([lightness, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
