"""The plan of a scene of the built-in world, before it is drawn: things, places, labels."""

from dataclasses import dataclass

import numpy as np

from registers.settings.errors import ConfigError
from registers.world.shapes import SHAPES, TEXTURES

SPLITS = ("train", "val", "test")
VERSION = 3  # raise it whenever a scene changes: prepared splits are drawn anew

KINDS = tuple(SHAPES)
COLOURS = {
    "red": (0.83, 0.16, 0.17),
    "orange": (0.94, 0.53, 0.12),
    "yellow": (0.93, 0.82, 0.20),
    "green": (0.18, 0.62, 0.26),
    "turquoise": (0.15, 0.68, 0.68),
    "blue": (0.16, 0.34, 0.80),
    "purple": (0.55, 0.23, 0.68),
    "pink": (0.93, 0.50, 0.68),
}
# Background colours, from the near end to the far one.
GROUNDS = {
    "green": ((0.36, 0.47, 0.33), (0.72, 0.80, 0.66)),
    "blue": ((0.34, 0.43, 0.55), (0.72, 0.79, 0.87)),
    "brown": ((0.45, 0.36, 0.29), (0.80, 0.73, 0.65)),
    "grey": ((0.37, 0.37, 0.38), (0.76, 0.76, 0.77)),
    "violet": ((0.42, 0.36, 0.50), (0.79, 0.74, 0.86)),
    "sandy": ((0.56, 0.50, 0.36), (0.90, 0.86, 0.74)),
}
BACKGROUNDS = ("plain", "gradient", "glow", "horizon", "haze")
LIGHTS = ("upper left", "upper right", "lower left", "lower right")
QUADRANTS = LIGHTS
SIZES = ("small", "medium", "large")
DISTANCES = ("near", "middle", "far")
ORDERS = ("alone", "in front", "behind")

# The stand-ins for the paper's 14 classification sets (Tables 1 and 6): names of the values of each
# label set.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "class": KINDS,
    "fine": tuple(f"{texture} {kind}" for kind in KINDS for texture in TEXTURES),
    "colour": tuple(COLOURS),
    "texture": tuple(TEXTURES),
    "background": BACKGROUNDS,
    "background_colour": tuple(GROUNDS),
    "count": ("1", "2", "3", "4"),
    "quadrant": QUADRANTS,
    "size": SIZES,
    "distance": DISTANCES,
    "order": ORDERS,
    "light": LIGHTS,
    "second": ("none", *KINDS),
    "second_colour": ("none", *COLOURS),
}

# As with things in photos, a kind has a usual look (its colour seven times in eight, its texture
# three times in four), and an image is about one large thing. A small shape that can have any look
# takes a ViT far more images to recognise than a run on two cores sees: with free colours DeiT-III
# stood at chance after 15,000 images, with these it is well above. No two kinds share both.
HOME_COLOUR = tuple(kind % len(COLOURS) for kind in range(len(KINDS)))
HOME_TEXTURE = tuple(
    (kind + 2 * (kind // len(COLOURS))) % len(TEXTURES) for kind in range(len(KINDS))
)

# Depth in scene units: of things, and of the background.
NEAR, FAR = 2.0, 6.0
GROUND_NEAR, GROUND_FAR = 7.0, 10.0

COUNTS = (1, 1, 1, 2, 2, 2, 3, 4)  # how many things a scene tries to hold, each as likely
GRID = 32  # visibility is decided on this grid, so that it does not depend on the image's size


class Draws:
    """Uniform numbers of one scene, from a counter-based generator keyed by (seed, split, index).

    They are made of its raw words: numpy promises the raw stream of Philox to stay the same, not
    that of `Generator`'s methods. Raises ConfigError for a key that is not possible.
    """

    def __init__(self, seed: int, split: str, index: int) -> None:
        if split not in SPLITS:
            raise ConfigError(f"split = {split!r}: must be one of {', '.join(SPLITS)}")
        if not 0 <= seed < 2**62 or not 0 <= index < 2**64:
            raise ConfigError(
                f"seed = {seed}, index = {index}: must be integers of at least 0, "
                "below 2^62 and 2^64"
            )
        key = (seed * 4 + SPLITS.index(split)) << 64 | index
        self.words = iter(np.random.Philox(key=key).random_raw(320).tolist())

    def uniform(self, low: float, high: float) -> float:
        """53 bits of one word."""
        return low + (high - low) * ((next(self.words) >> 11) * 2.0**-53)

    def below(self, n: int) -> int:
        """An integer from 0 to n - 1."""
        return next(self.words) % n

    def table(self) -> np.ndarray:
        """(8, 8) float32 in 0..1."""
        words = np.array([next(self.words) for _ in range(8)], np.uint64)
        return words.astype("<u8").view(np.uint8).reshape(8, 8).astype(np.float32) / np.float32(255)


@dataclass
class Thing:
    """One object.

    kind, texture, colour: indices.
    x, y, radius: in the unit square, y down.
    depth: scene units.
    cos, sin: of its rotation.
    rgb: its first tone.
    second_tone: brightness of the texture's second tone, towards white above 0, black below.
    table: (8, 8) random numbers of a texture.
    """

    kind: int
    texture: int
    colour: int
    x: float
    y: float
    radius: float
    depth: float
    cos: float
    sin: float
    rgb: tuple[float, ...]
    second_tone: float
    table: np.ndarray

    def window(
        self, pixels: int, dx: float = 0.0, dy: float = 0.0, reach: float = 1.25
    ) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
        """The part of the image that it may touch, and the coordinates u, v of its frame there.

        pixels: side of the image. dx, dy: how far it is moved (a shadow). reach: in radii.
        """
        x = self.x + dx
        y = self.y + dy
        margin = self.radius * reach + 1.0 / pixels
        rows, v = _axis(y, margin, self.radius, pixels)
        columns, u = _axis(x, margin, self.radius, pixels)
        a = u[None, :]
        b = v[:, None]
        return (rows, columns), self.cos * a + self.sin * b, self.cos * b - self.sin * a

    def distance(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Signed distance to its rim, in radii, negative inside."""
        return SHAPES[KINDS[self.kind]](u, v)


def _axis(centre: float, margin: float, radius: float, pixels: int) -> tuple[slice, np.ndarray]:
    """Pixels within `margin` of a centre along one axis, and their offsets from it in radii."""
    start = max(0, int((centre - margin) * pixels))
    end = min(pixels, int((centre + margin) * pixels) + 1)
    middles = (np.arange(start, end, dtype=np.float32) + 0.5) / pixels
    return slice(start, end), (middles - centre) / radius


@dataclass
class Plan:
    """What a scene holds, before it is drawn.

    things: the main one first, then the second.
    touching: whether main and second overlap in the image.
    background, ground, light, quadrant, size: indices into the tuples above.
    ramp: twelve numbers from -1 to 1 that shape the background.
    """

    things: list[Thing]
    touching: bool
    background: int
    ground: int
    light: int
    quadrant: int
    size: int
    ramp: tuple[float, ...]

    @property
    def painted(self) -> list[Thing]:
        """From far to near."""
        return sorted(self.things, key=lambda thing: -thing.depth)


def plan_scene(draws: Draws) -> Plan:
    """Plan a scene. Things that would be mostly hidden, or hide the main one, are left out."""
    background = draws.below(len(BACKGROUNDS))
    ground = draws.below(len(GROUNDS))
    light = draws.below(4)
    ramp = tuple(draws.uniform(-1, 1) for _ in range(12))
    quadrant = draws.below(4)
    size = draws.below(3)
    count = COUNTS[draws.below(len(COUNTS))]

    main = _main_thing(draws, quadrant, size)
    things = [main]
    silhouettes = [_silhouette(main)]
    for number in range(1, count):
        other = _further_thing(draws, main, beside=number == 1)
        within = 0.06 < other.x < 0.94 and 0.06 < other.y < 0.94
        if within and _all_visible([*things, other], [*silhouettes, _silhouette(other)]):
            things.append(other)
            silhouettes.append(_silhouette(other))

    touching = len(things) > 1 and bool((silhouettes[0] & silhouettes[1]).any())
    return Plan(things, touching, background, ground, light, quadrant, size, ramp)


def labels_of(plan: Plan) -> dict[str, int]:
    """The index of the value of each of ATTRIBUTES."""
    main = plan.things[0]
    second = plan.things[1] if len(plan.things) > 1 else None
    order = "alone"
    if second is not None:
        order = "in front" if main.depth < second.depth else "behind"
    return {
        "class": main.kind,
        "fine": main.kind * len(TEXTURES) + main.texture,
        "colour": main.colour,
        "texture": main.texture,
        "background": plan.background,
        "background_colour": plan.ground,
        "count": len(plan.things) - 1,
        "quadrant": plan.quadrant,
        "size": plan.size,
        "distance": min(2, int((main.depth - NEAR) / (FAR - NEAR) * 3)),
        "order": ORDERS.index(order),
        "light": plan.light,
        "second": 0 if second is None else 1 + second.kind,
        "second_colour": 0 if second is None else 1 + second.colour,
    }


# --- things: the order in which numbers are drawn is part of the world, see VERSION ---------------


def _main_thing(draws: Draws, quadrant: int, size: int) -> Thing:
    """A large thing in its quadrant, wholly inside the image."""
    radius = 0.22 + 0.05 * size + draws.uniform(0, 0.03)
    thing = _thing(draws, radius, depth=draws.uniform(NEAR, FAR))
    reach = 0.5 - radius - 0.02
    thing.x = 0.5 + (1 if quadrant % 2 else -1) * draws.uniform(0.05, reach)
    thing.y = 0.5 + (1 if quadrant // 2 else -1) * draws.uniform(0.05, reach)
    return thing


def _further_thing(draws: Draws, main: Thing, beside: bool) -> Thing:
    """A small thing anywhere; with `beside`, two times in three beside or over the main thing."""
    radius = draws.uniform(0.09, 0.14)
    thing = _thing(draws, radius, depth=draws.uniform(NEAR, FAR))
    if beside and draws.below(3):
        distance = draws.uniform(0.55, 1.2) * (main.radius + radius)
        turn = draws.uniform(-1, 1)
        side = 1 if draws.below(2) else -1
        thing.x = main.x + side * distance * (1 - turn * turn) / (1 + turn * turn)
        thing.y = main.y + distance * 2 * turn / (1 + turn * turn)
    else:
        thing.x = draws.uniform(0.08, 0.92)
        thing.y = draws.uniform(0.08, 0.92)
    return thing


def _thing(draws: Draws, radius: float, depth: float) -> Thing:
    """A thing with a random look, in the middle of the image."""
    turn = draws.uniform(-0.3, 0.3)  # half the angle's tangent: up to 33 degrees either way
    kind = draws.below(len(KINDS))
    texture = draws.below(len(TEXTURES))
    colour = draws.below(len(COLOURS))
    if draws.below(8):
        colour = HOME_COLOUR[kind]
    if draws.below(4):
        texture = HOME_TEXTURE[kind]
    rgb = tuple(c + draws.uniform(-0.06, 0.06) for c in tuple(COLOURS.values())[colour])
    second_tone = (0.62, -0.55)[draws.below(2)]
    return Thing(
        kind=kind,
        texture=texture,
        colour=colour,
        x=0.5,
        y=0.5,
        radius=radius,
        depth=depth,
        cos=(1 - turn * turn) / (1 + turn * turn),
        sin=2 * turn / (1 + turn * turn),
        rgb=rgb,
        second_tone=second_tone,
        table=draws.table(),
    )


# --- what is visible ------------------------------------------------------------------------------


def _silhouette(thing: Thing) -> np.ndarray:
    """(GRID, GRID) bool: where the thing is, hidden or not."""
    where, u, v = thing.window(GRID)
    inside = np.zeros((GRID, GRID), bool)
    inside[where] = thing.distance(u, v) < 0
    return inside


def _all_visible(things: list[Thing], silhouettes: list[np.ndarray]) -> bool:
    """Whether enough of each thing is visible.

    A good half of the main one, a third of the others, and at least six cells of the grid.
    """
    for number, (thing, inside) in enumerate(zip(things, silhouettes)):
        visible = inside.copy()
        for other, cover in zip(things, silhouettes):
            if other.depth < thing.depth:
                visible &= ~cover
        share = 0.6 if number == 0 else 0.35
        if visible.sum() < max(6, share * inside.sum()):
            return False
    return True
