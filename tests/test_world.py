"""The built-in world: the same bytes everywhere, and annotations that fit the image."""

import hashlib
import itertools
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from registers.settings.errors import ConfigError
from registers.world import dataset, plan, shapes
from registers.world.dataset import World, prepare, scene
from registers.world.plan import ATTRIBUTES, SPLITS, Draws, labels_of, plan_scene

SCENES = [scene(0, i, 64) for i in range(150)]


def fingerprint(sample) -> str:
    digest = hashlib.sha256(np.asarray(sample.image).tobytes())
    for part in (sample.mask, sample.depth, sample.boxes):
        digest.update(part.astype(part.dtype.newbyteorder("<")).tobytes())
    digest.update(json.dumps([sample.attributes, sample.caption]).encode())
    return digest.hexdigest()


def test_same_bytes_on_every_machine():
    """Recorded on x86-64 Linux, numpy 2.4. Only correctly rounded operations are used."""
    digest = hashlib.sha256("".join(fingerprint(s) for s in SCENES[:40]).encode()).hexdigest()
    assert digest == "1f3e811ae0d85cb77f8a96aff1b36ba230c4f65b121a282140dbb2f5f942019b"
    assert fingerprint(scene(0, 3, 64)) == fingerprint(SCENES[3])


def test_same_bytes_without_the_vector_units():
    """numpy picks its loops by processor; with all of those off, the plain ones give the same."""
    from numpy._core import _multiarray_umath as core

    extensions = [f for f in core.__cpu_dispatch__ if core.__cpu_features__.get(f)]
    code = "from test_world import *; print(*map(fingerprint, SCENES[:40]))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env={**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(extensions)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [fingerprint(s) for s in SCENES[:40]]


def test_random_stream_is_that_of_philox():
    """53 bits of each raw word, as numpy's own `random` takes them."""
    draws = Draws(0, "train", 0)
    expected = np.random.Generator(np.random.Philox(key=0)).random(4)
    assert [draws.uniform(0, 1) for _ in range(4)] == expected.tolist()


def test_splits_seeds_and_indices_never_share_a_scene():
    keys = itertools.product((0, 1), range(20), SPLITS)
    fingerprints = {fingerprint(scene(seed, i, 16, split)) for seed, i, split in keys}
    assert len(fingerprints) == 2 * 20 * 3


def test_background_is_the_majority_and_smooth():
    for s in SCENES:
        background = s.mask == 0
        assert background.mean() > 0.5
        assert s.depth[background].min() >= 7 and s.depth[background].max() <= 10
        neighbours = background[:, 1:] & background[:, :-1]
        assert np.abs(np.diff(s.depth, axis=1))[neighbours].max() < 0.5


def test_things_stand_before_the_background():
    for s in SCENES:
        assert s.depth[s.mask > 0].max() <= 6 < 7 <= s.depth[s.mask == 0].min()


def test_boxes_are_the_visible_extents():
    """Every pixel of a thing lies in a box, and every box is tight.

    Tight: each of its four border lines touches a thing of some class.
    """
    for s in SCENES:
        covered = np.zeros(s.mask.shape, bool)
        for x0, y0, x1, y1 in s.boxes.astype(int):
            part = s.mask[y0:y1, x0:x1]
            assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()
            covered[y0:y1, x0:x1] = True
        assert covered[s.mask > 0].all()
        assert len(s.boxes) == s.attributes["count"] + 1


def test_single_thing_has_the_box_of_its_mask():
    singles = [s for s in SCENES if s.attributes["count"] == 0]
    assert len(singles) > 10
    for s in singles:
        rows, columns = np.nonzero(s.mask)
        assert s.boxes.tolist() == [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]
        assert set(np.unique(s.mask)) == {0, s.label + 1}


def test_occlusion_follows_depth():
    """Where main and second overlap, the nearer one owns the pixels."""
    checked = 0
    for index in range(150):
        planned = plan_scene(Draws(0, "train", index))
        if not planned.touching or len(planned.things) != 2:
            continue
        main, second = planned.things
        both = plan._silhouette(main) & plan._silhouette(second)
        front = min(planned.things, key=lambda thing: thing.depth)
        drawn = scene(0, index, plan.GRID)
        assert (drawn.mask[both] == front.kind + 1).all()
        assert ("in front of" in drawn.caption) == (front is main)
        checked += 1
    assert checked > 10


def test_main_thing_lies_in_its_quadrant_and_size_grows():
    radii = {0: [], 1: [], 2: []}
    for index in range(150):
        planned = plan_scene(Draws(0, "train", index))
        main = planned.things[0]
        labels = labels_of(planned)
        quadrant = ATTRIBUTES["quadrant"][labels["quadrant"]]
        assert (main.y < 0.5) == quadrant.startswith("upper")
        assert (main.x < 0.5) == quadrant.endswith("left")
        radii[labels["size"]].append(main.radius)
    assert max(radii[0]) < min(radii[1]) and max(radii[1]) < min(radii[2])


def test_the_plan_does_not_depend_on_the_number_of_pixels():
    for index in range(20):
        small, large = scene(0, index, 32), scene(0, index, 96)
        assert small.attributes == large.attributes and small.caption == large.caption
        if len(small.boxes) == len(large.boxes):
            assert np.abs(small.boxes * 3 - large.boxes).max() <= 12  # a thin tip may be gone
        mean = np.asarray(large.image, float).reshape(32, 3, 32, 3, 3).mean((1, 3))
        assert np.abs(mean - np.asarray(small.image, float)).mean() < 3


def test_the_shadow_falls_away_from_the_light():
    """The ground left of a single thing is darker when the light comes from the right."""
    gaps = {"left": [], "right": []}
    for index in range(600):
        s = scene(1, index, 32)
        names = {name: ATTRIBUTES[name][value] for name, value in s.attributes.items()}
        if names["count"] != "1" or names["background"] != "plain":
            continue
        grey = np.asarray(s.image.convert("L"), float)
        x0, y0, x1, y1 = s.boxes[0].astype(int)
        middle = slice((y0 + y1) // 2 - 2, (y0 + y1) // 2 + 2)
        left = grey[middle, x0 - 1].mean()
        right = grey[middle, min(x1, 31)].mean()
        gaps[names["light"].split()[1]].append(left - right)
    assert np.mean(gaps["right"]) < -2
    assert np.mean(gaps["left"]) > 2


def test_there_are_fourteen_label_sets():
    assert len(ATTRIBUTES) == 14
    assert len(ATTRIBUTES["class"]) == 10
    assert len(ATTRIBUTES["fine"]) == 40


def test_all_values_of_all_label_sets_occur_and_agree():
    labels = [labels_of(plan_scene(Draws(2, "val", i))) for i in range(1500)]
    for name, values in ATTRIBUTES.items():
        assert {label[name] for label in labels} == set(range(len(values))), name
    for label in labels:
        assert label["fine"] // 4 == label["class"]
        assert label["fine"] % 4 == label["texture"]
        assert (label["second"] == 0) == (label["count"] == 0) == (label["order"] == 0)


def test_captions_describe_the_scene():
    for s in SCENES:
        names = {name: ATTRIBUTES[name][value] for name, value in s.attributes.items()}
        for name in ("class", "colour", "texture", "background_colour"):
            assert names[name] in s.caption
        assert " a " in f" {s.caption} " or " an " in f" {s.caption} "
        assert " a orange" not in s.caption
        if names["second"] != "none":
            assert names["second"] in s.caption
    assert len({s.caption for s in SCENES}) > 130


@pytest.mark.parametrize("name", list(shapes.SHAPES))
def test_shapes_are_distances(name):
    """A distance changes by at most the way gone; inside it is negative, far out positive."""
    u, v = np.meshgrid(np.linspace(-1.6, 1.6, 161), np.linspace(-1.6, 1.6, 161))
    d = shapes.SHAPES[name](u, v)
    step = 0.02 * 1.0001
    assert np.abs(np.diff(d, axis=0)).max() <= step
    assert np.abs(np.diff(d, axis=1)).max() <= step
    assert (d < 0).any()
    assert (d[np.sqrt(u * u + v * v) > 1.25] > 0).all()
    assert 0.8 < (d < 0).mean() * 3.2**2 < 3.2  # areas of the same order


def test_star_has_five_tips_seventy_two_degrees_apart():
    angles = np.arange(5) * 2 * np.pi / 5
    tips = shapes.star(1.05 * np.sin(angles), -1.05 * np.cos(angles))
    notches = shapes.star(0.6 * np.sin(angles + np.pi / 5), -0.6 * np.cos(angles + np.pi / 5))
    assert (tips < 0).all() and (notches > 0).all()


@pytest.mark.parametrize("name", list(shapes.TEXTURES))
def test_textures_use_both_tones(name):
    u, v = np.meshgrid(np.linspace(-1, 1, 201), np.linspace(-1, 1, 201))
    table = np.random.default_rng(0).random((8, 8)).astype(np.float32)
    tone = shapes.TEXTURES[name](u, v, 0.02, table)
    assert tone.min() >= 0 and tone.max() <= 1 and 0.2 < tone.mean() < 0.8 and tone.std() > 0.15


def test_prepared_split_reads_back_exactly(tmp_path):
    folder = prepare(tmp_path / "world-val", "val", 6, 32, progress=False)
    split = pickle.loads(pickle.dumps(World(folder)))
    assert len(split) == 6 and split.classes == plan.KINDS and split.attributes == ATTRIBUTES
    for i in range(6):
        assert fingerprint(split[i]) == fingerprint(scene(0, i, 32, "val"))
    split[0]
    assert len(pickle.dumps(split)) < 20_000  # the arrays stay on disk
    with pytest.raises(IndexError):
        split[6]


def test_prepare_is_idempotent_and_redraws_on_other_settings(tmp_path):
    folder = prepare(tmp_path / "w", "train", 4, 16, progress=False)
    first = World(folder).fingerprint
    stamp = (folder / "image.npy").stat().st_mtime_ns
    prepare(folder, "train", 4, 16, progress=False)
    assert (folder / "image.npy").stat().st_mtime_ns == stamp
    assert World(prepare(tmp_path / "v", "train", 4, 16, progress=False)).fingerprint == first
    assert World(prepare(folder, "train", 4, 16, seed=1, progress=False)).fingerprint != first


def test_a_killed_prepare_leaves_no_split_and_is_repaired(tmp_path, monkeypatch):
    def killed(seed, index, *rest):
        if index == 2:
            raise KeyboardInterrupt
        return scene(seed, index, *rest)

    monkeypatch.setattr(dataset, "scene", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "w", "train", 4, 16, progress=False)
    with pytest.raises(ConfigError, match="no prepared split"):
        World(tmp_path / "w")
    monkeypatch.undo()
    assert len(World(prepare(tmp_path / "w", "train", 4, 16, progress=False))) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["w"]


def test_wrong_split_or_index_is_one_clear_line():
    with pytest.raises(ConfigError, match="split = 'dev': must be one of train, val, test"):
        scene(0, 0, 16, "dev")
    with pytest.raises(ConfigError, match="index = -1"):
        scene(0, -1, 16)


def test_a_kind_usually_wears_its_own_colour_and_texture():
    """Its own colour seven times in eight, its own texture three times in four.

    Otherwise any of all, which may be its own again.
    """
    labels = [labels_of(plan_scene(Draws(3, "train", i))) for i in range(600)]
    colour = np.mean([label["colour"] == plan.HOME_COLOUR[label["class"]] for label in labels])
    texture = np.mean([label["texture"] == plan.HOME_TEXTURE[label["class"]] for label in labels])
    assert colour == pytest.approx(7 / 8 + 1 / 8 / 8, abs=0.06)
    assert texture == pytest.approx(3 / 4 + 1 / 4 / 4, abs=0.06)


def test_no_two_kinds_share_colour_and_texture():
    assert len(set(zip(plan.HOME_COLOUR, plan.HOME_TEXTURE))) == len(plan.KINDS)
