"""Shapes and textures of the embedded world: elementwise arithmetic only, so every machine computes the same bits.

Each shape is a signed distance in its own frame: u right, v down, negative inside, about one unit from centre to rim.
Only + - * /, sqrt, comparisons and integer operations are used: IEEE 754 rounds each of them exactly, while sin, exp or a
matrix product may differ in the last bit from one machine to the next.
"""

from collections.abc import Callable

import numpy as np

SIN60 = 0.8660254037844386
COS72, SIN72 = 0.30901699437494745, 0.9510565162951535
COS36, SIN36 = 0.8090169943749475, 0.5877852522924731
HALF_SQRT2 = 0.7071067811865476

Array = np.ndarray


def _around(u: Array, v: Array, x: float = 0.0, y: float = 0.0) -> Array:
    """Distance to the point (x, y)."""
    du, dv = u - x, v - y
    return np.sqrt(du * du + dv * dv)


def disc(u: Array, v: Array) -> Array:
    return _around(u, v) - 0.85


def square(u: Array, v: Array) -> Array:
    return np.maximum(np.abs(u), np.abs(v)) - 0.77


def triangle(u: Array, v: Array) -> Array:
    v = v - 0.15
    return np.maximum(v - 0.58, SIN60 * np.abs(u) - 0.5 * v - 0.58)


def star(u: Array, v: Array) -> Array:
    """A pentagram is where at most one of five half planes is left: the second largest of their distances."""
    low, high = SIN72 * u, SIN36 * u  # outward normals 72 degrees apart, the first one up
    planes = (-v, low - COS72 * v, -low - COS72 * v, high + COS36 * v, -high + COS36 * v)
    first, second = np.maximum(planes[0], planes[1]), np.minimum(planes[0], planes[1])
    for plane in planes[2:]:
        second = np.maximum(second, np.minimum(first, plane))
        first = np.maximum(first, plane)
    return second - 0.34


def ring(u: Array, v: Array) -> Array:
    return np.abs(_around(u, v) - 0.66) - 0.27


def cross(u: Array, v: Array) -> Array:
    u, v = np.abs(u), np.abs(v)
    return np.maximum(np.minimum(u, v) - 0.3, np.maximum(u, v) - 0.95)


def moon(u: Array, v: Array) -> Array:
    return np.maximum(_around(u, v, -0.1) - 0.95, 0.75 - _around(u, v, 0.42))


def hexagon(u: Array, v: Array) -> Array:
    u, v = np.abs(u), np.abs(v)
    return np.maximum(u, 0.5 * u + SIN60 * v) - 0.82


def heart(u: Array, v: Array) -> Array:
    """A diamond with a disc on each of its upper edges."""
    u = np.abs(u)
    diamond = HALF_SQRT2 * (u + np.abs(v - 0.15)) - 0.52
    return np.minimum(diamond, _around(u, v, 0.37, -0.22) - 0.52)


def flower(u: Array, v: Array) -> Array:
    """Six petals around a disc, by symmetry two of them."""
    u, v = np.abs(u), np.abs(v)
    petals = np.minimum(_around(u, v, 0.6) - 0.33, _around(u, v, 0.3, 0.5196) - 0.33)
    return np.minimum(petals, _around(u, v) - 0.38)


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    shape.__name__: shape
    for shape in (disc, square, triangle, star, ring, cross, moon, hexagon, heart, flower)
}


# --- textures: how much of the second tone (0..1) at (u, v); `blur` is one pixel in the frame's units --------------------


def _wave(t: Array, period: float) -> Array:
    """Triangle wave of `period`: distance to the nearest edge of a half-and-half pattern, positive in the second half."""
    t = t / period
    return (0.25 - np.abs(t - np.floor(t) - 0.5)) * period


def _soft(distance: Array, blur: float) -> Array:
    return np.minimum(np.maximum(0.5 + distance / blur, 0.0), 1.0)


def striped(u: Array, v: Array, blur: float, table: Array) -> Array:
    return _soft(_wave(u + 0.1, 0.46), blur)


def checked(u: Array, v: Array, blur: float, table: Array) -> Array:
    a, b = _soft(_wave(u, 0.8), blur), _soft(_wave(v, 0.8), blur)
    return a + b - 2 * a * b


def dotted(u: Array, v: Array, blur: float, table: Array) -> Array:
    """Discs on a square lattice of period 0.5."""
    u, v = u / 0.5, v / 0.5
    return _soft(0.15 - 0.5 * _around(u - np.floor(u), v - np.floor(v), 0.5, 0.5), blur)


def speckled(u: Array, v: Array, blur: float, table: Array) -> Array:
    """Value noise: the entries of a random table (8, 8), bilinear in between, 0.22 units apart."""
    u, v = u / 0.22 + 64, v / 0.22 + 64
    i, j = u.astype(np.int32), v.astype(np.int32)
    a, b = u - i, v - j
    i0, j0, i1, j1 = i % 8, j % 8, (i + 1) % 8, (j + 1) % 8
    top = table[j0, i0] + (table[j0, i1] - table[j0, i0]) * a
    bottom = table[j1, i0] + (table[j1, i1] - table[j1, i0]) * a
    return top + (bottom - top) * b


TEXTURES: dict[str, Callable[[Array, Array, float, Array], Array]] = {
    t.__name__: t for t in (striped, checked, dotted, speckled)
}
