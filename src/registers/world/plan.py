"""What a scene of the embedded world holds, before it is drawn: things, places, labels."""

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
GROUNDS = {  # background colours, from the near end to the far one
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

# The stand-ins for the paper's 14 classification sets (Tables 1 and 6): names of the values of each label set.
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

# As with things in photos, a kind has a usual look (its colour seven times in eight, its texture three times in four), and pictures are
# about one large thing. A small shape that can have any look takes a ViT far more images to recognise than a run on two cores
# sees: with free colours DeiT-III stood at chance after 15,000 images, with these it is well above.
HOME_COLOUR = tuple(kind % len(COLOURS) for kind in range(len(KINDS)))
HOME_TEXTURE = tuple(
    (kind + 2 * (kind // len(COLOURS))) % len(TEXTURES) for kind in range(len(KINDS))
)  # no two kinds share both

NEAR, FAR = 2.0, 6.0  # depth of things, scene units
GROUND_NEAR, GROUND_FAR = 7.0, 10.0  # depth of the background


class Draws:
    """Uniform numbers of one scene, from the raw words of a counter-based generator keyed by (seed, split, index).

    numpy promises the raw stream of Philox, not that of `Generator`'s methods.
    """

    def __init__(self, seed: int, split: str, index: int) -> None:
        if split not in SPLITS:
            raise ConfigError(f"split = {split!r}: allowed are {', '.join(SPLITS)}")
        if not 0 <= seed < 2**62 or not 0 <= index < 2**64:
            raise ConfigError(f"seed = {seed}, index = {index}: allowed are whole numbers from 0")
        key = (seed * 4 + SPLITS.index(split)) << 64 | index
        self.words = iter(np.random.Philox(key=key).random_raw(320).tolist())

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * ((next(self.words) >> 11) * 2.0**-53)

    def below(self, n: int) -> int:
        return next(self.words) % n

    def table(self) -> np.ndarray:
        """(8, 8) float32 in 0..1."""
        words = np.array([next(self.words) for _ in range(8)], np.uint64)
        return words.astype("<u8").view(np.uint8).reshape(8, 8).astype(np.float32) / np.float32(255)


@dataclass
class Thing:
    """One object. kind, texture, colour: indices. x, y, radius: unit square. cos, sin: its rotation. depth: scene units."""

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
    second_tone: (
        float  # brightness of the texture's second tone: towards white above 0, towards black below
    )
    table: np.ndarray

    def window(self, pixels: int, dx: float = 0.0, dy: float = 0.0, reach: float = 1.25):
        """The part of the picture it may touch, moved by (dx, dy): two slices and its frame's u and v there."""
        x, y = self.x + dx, self.y + dy
        reach = self.radius * reach + 1.0 / pixels
        left, right = max(0, int((x - reach) * pixels)), min(pixels, int((x + reach) * pixels) + 1)
        top, bottom = max(0, int((y - reach) * pixels)), min(pixels, int((y + reach) * pixels) + 1)
        a = (((np.arange(left, right, dtype=np.float32) + 0.5) / pixels - x) / self.radius)[None, :]
        b = (((np.arange(top, bottom, dtype=np.float32) + 0.5) / pixels - y) / self.radius)[:, None]
        return (
            (slice(top, bottom), slice(left, right)),
            self.cos * a + self.sin * b,
            self.cos * b - self.sin * a,
        )

    def distance(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return SHAPES[KINDS[self.kind]](u, v)


@dataclass
class Plan:
    """What a scene holds, before it is drawn."""

    things: list[Thing]  # things[0] is the main one; the second is things[1]
    touching: bool  # whether main and second overlap in the picture
    background: int
    ground: int
    light: int
    quadrant: int
    size: int
    ramp: tuple[float, ...]  # the background's free numbers

    @property
    def painted(self) -> list[Thing]:
        """From far to near."""
        return sorted(self.things, key=lambda thing: -thing.depth)


def _thing(draws: Draws, radius: float, depth: float) -> Thing:
    turn = draws.uniform(-0.3, 0.3)  # half the angle's tangent: up to 33 degrees either way
    kind, texture, colour = (
        draws.below(len(KINDS)),
        draws.below(len(TEXTURES)),
        draws.below(len(COLOURS)),
    )
    if draws.below(8):
        colour = HOME_COLOUR[kind]
    if draws.below(4):
        texture = HOME_TEXTURE[kind]
    rgb = tuple(c + draws.uniform(-0.06, 0.06) for c in tuple(COLOURS.values())[colour])
    norm = 1 + turn * turn
    tone = (0.62, -0.55)[draws.below(2)]
    return Thing(
        kind,
        texture,
        colour,
        0.5,
        0.5,
        radius,
        depth,
        (1 - turn * turn) / norm,
        2 * turn / norm,
        rgb,
        tone,
        draws.table(),
    )


def plan_scene(draws: Draws) -> Plan:
    """Draw the facts. Things that would be mostly hidden, or hide the main one, are left out."""
    background, ground, light = (
        draws.below(len(BACKGROUNDS)),
        draws.below(len(GROUNDS)),
        draws.below(4),
    )
    ramp = tuple(draws.uniform(-1, 1) for _ in range(12))
    quadrant, size, count = draws.below(4), draws.below(3), (1, 1, 1, 2, 2, 2, 3, 4)[draws.below(8)]
    main = _thing(
        draws, radius=0.22 + 0.05 * size + draws.uniform(0, 0.03), depth=draws.uniform(NEAR, FAR)
    )
    reach = 0.5 - main.radius - 0.02
    main.x = 0.5 + (1 if quadrant % 2 else -1) * draws.uniform(0.05, reach)
    main.y = 0.5 + (1 if quadrant // 2 else -1) * draws.uniform(0.05, reach)
    scene = Plan([main], False, background, ground, light, quadrant, size, ramp)
    silhouettes = [_silhouette(main)]
    for number in range(1, count):
        other = _thing(draws, radius=draws.uniform(0.09, 0.14), depth=draws.uniform(NEAR, FAR))
        if number == 1 and draws.below(3):  # two times in three beside or over the main thing
            share = draws.uniform(0.55, 1.2) * (main.radius + other.radius)
            turn = draws.uniform(-1, 1)
            side = 1 if draws.below(2) else -1
            other.x = main.x + side * share * (1 - turn * turn) / (1 + turn * turn)
            other.y = main.y + share * 2 * turn / (1 + turn * turn)
        else:
            other.x, other.y = draws.uniform(0.08, 0.92), draws.uniform(0.08, 0.92)
        if not (
            0.06 < other.x < 0.94
            and 0.06 < other.y < 0.94
            and _all_visible([*scene.things, other], [*silhouettes, _silhouette(other)])
        ):
            continue
        scene.things.append(other)
        silhouettes.append(_silhouette(other))
    if len(scene.things) > 1:
        scene.touching = bool((silhouettes[0] & silhouettes[1]).any())
    return scene


GRID = 32  # facts are decided on this grid whatever the picture's size, so that they do not depend on it


def _silhouette(thing: Thing) -> np.ndarray:
    where, u, v = thing.window(GRID)
    inside = np.zeros((GRID, GRID), bool)
    inside[where] = thing.distance(u, v) < 0
    return inside


def _all_visible(things: list[Thing], silhouettes: list[np.ndarray]) -> bool:
    """Of each thing a good half of the main one, a third of the others, and at least six cells must be seen."""
    for number, (thing, inside) in enumerate(zip(things, silhouettes)):
        seen = inside.copy()
        for other, cover in zip(things, silhouettes):
            if other.depth < thing.depth:
                seen &= ~cover
        visible, area = int(seen.sum()), int(inside.sum())
        if visible < 6 or visible < (0.6 if number == 0 else 0.35) * area:
            return False
    return True


def labels_of(plan: Plan) -> dict[str, int]:
    """The index of each of ATTRIBUTES."""
    main = plan.things[0]
    second = plan.things[1] if len(plan.things) > 1 else None
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
        "order": 0 if second is None else 1 if main.depth < second.depth else 2,
        "light": plan.light,
        "second": 0 if second is None else 1 + second.kind,
        "second_colour": 0 if second is None else 1 + second.colour,
    }
