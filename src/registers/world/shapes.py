"""Shapes and textures of the built-in world, the same bits on every machine.

Each shape is a signed distance in its own frame: u right, v down, negative inside, about one unit
from centre to rim. Only + - * /, sqrt, comparisons and integer operations are used, elementwise:
IEEE 754 rounds each of them exactly, while sin, exp or a matrix product may differ in the last bit
from one machine to the next.
"""

from collections.abc import Callable

import numpy as np

SIN60 = 0.8660254037844386
COS72 = 0.30901699437494745
SIN72 = 0.9510565162951535
COS36 = 0.8090169943749475
SIN36 = 0.5877852522924731
HALF_SQRT2 = 0.7071067811865476

Array = np.ndarray


def _around(u: Array, v: Array, x: float = 0.0, y: float = 0.0) -> Array:
    """Distance to the point (x, y)."""
    du = u - x
    dv = v - y
    return np.sqrt(du * du + dv * dv)


def disc(u: Array, v: Array) -> Array:
    return _around(u, v) - 0.85


def square(u: Array, v: Array) -> Array:
    return np.maximum(np.abs(u), np.abs(v)) - 0.77


def triangle(u: Array, v: Array) -> Array:
    v = v - 0.15
    return np.maximum(v - 0.58, SIN60 * np.abs(u) - 0.5 * v - 0.58)


def star(u: Array, v: Array) -> Array:
    """A pentagram.

    It is where a point lies outside at most one of five half planes, so its distance is the second
    largest of theirs.
    """
    low = SIN72 * u
    high = SIN36 * u
    # outward normals 72 degrees apart, the first one up
    planes = (-v, low - COS72 * v, -low - COS72 * v, high + COS36 * v, -high + COS36 * v)
    first = np.maximum(planes[0], planes[1])
    second = np.minimum(planes[0], planes[1])
    for plane in planes[2:]:
        second = np.maximum(second, np.minimum(first, plane))
        first = np.maximum(first, plane)
    return second - 0.34


def ring(u: Array, v: Array) -> Array:
    return np.abs(_around(u, v) - 0.66) - 0.27


def cross(u: Array, v: Array) -> Array:
    u = np.abs(u)
    v = np.abs(v)
    return np.maximum(np.minimum(u, v) - 0.3, np.maximum(u, v) - 0.95)


def moon(u: Array, v: Array) -> Array:
    return np.maximum(_around(u, v, -0.1) - 0.95, 0.75 - _around(u, v, 0.42))


def hexagon(u: Array, v: Array) -> Array:
    u = np.abs(u)
    v = np.abs(v)
    return np.maximum(u, 0.5 * u + SIN60 * v) - 0.82


def heart(u: Array, v: Array) -> Array:
    """A diamond with a disc on each of its upper edges."""
    u = np.abs(u)
    diamond = HALF_SQRT2 * (u + np.abs(v - 0.15)) - 0.52
    return np.minimum(diamond, _around(u, v, 0.37, -0.22) - 0.52)


def flower(u: Array, v: Array) -> Array:
    """Six petals around a disc, by symmetry two of them."""
    u = np.abs(u)
    v = np.abs(v)
    petals = np.minimum(_around(u, v, 0.6) - 0.33, _around(u, v, 0.3, 0.5196) - 0.33)
    return np.minimum(petals, _around(u, v) - 0.38)


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    shape.__name__: shape
    for shape in (disc, square, triangle, star, ring, cross, moon, hexagon, heart, flower)
}


# --- textures -------------------------------------------------------------------------------------
# How much of the second tone (0 to 1) there is at (u, v). `blur` is one pixel in the frame's units,
# `table` (8, 8) random numbers.


def _wave(t: Array, period: float) -> Array:
    """Distance to the nearest edge of a half-and-half pattern, positive in the second half.

    A triangle wave of `period`.
    """
    t = t / period
    return (0.25 - np.abs(t - np.floor(t) - 0.5)) * period


def _soft(distance: Array, blur: float) -> Array:
    return np.minimum(np.maximum(0.5 + distance / blur, 0.0), 1.0)


def striped(u: Array, v: Array, blur: float, table: Array) -> Array:
    return _soft(_wave(u + 0.1, 0.46), blur)


def checked(u: Array, v: Array, blur: float, table: Array) -> Array:
    a = _soft(_wave(u, 0.8), blur)
    b = _soft(_wave(v, 0.8), blur)
    return a + b - 2 * a * b


def dotted(u: Array, v: Array, blur: float, table: Array) -> Array:
    """Discs on a square lattice of period 0.5."""
    u = u / 0.5
    v = v / 0.5
    return _soft(0.15 - 0.5 * _around(u - np.floor(u), v - np.floor(v), 0.5, 0.5), blur)


def speckled(u: Array, v: Array, blur: float, table: Array) -> Array:
    """Value noise: the entries of the table, bilinear in between, 0.22 units apart."""
    u = u / 0.22 + 64
    v = v / 0.22 + 64
    column = u.astype(np.int32)
    row = v.astype(np.int32)
    left, right = column % 8, (column + 1) % 8
    above, below = row % 8, (row + 1) % 8
    top = table[above, left] + (table[above, right] - table[above, left]) * (u - column)
    bottom = table[below, left] + (table[below, right] - table[below, left]) * (u - column)
    return top + (bottom - top) * (v - row)


TEXTURES: dict[str, Callable[[Array, Array, float, Array], Array]] = {
    texture.__name__: texture for texture in (striped, checked, dotted, speckled)
}
