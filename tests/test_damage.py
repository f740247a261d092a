"""What one stage hands to the next is checked when it is opened; the file and the cure are named.

Weights, cards and states: test_checkpoint.py. Token banks: test_tokens.py. Fingerprints of data
sets: test_fingerprints.py.
"""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from registers import files, inputs, measure, measurements
from registers.measurements import Measured, Measurement
from registers.questions import QUESTIONS
from registers.settings.errors import ConfigError
from registers.world.dataset import World, prepare

ROWS = [Measurement("norms", "share", "dinov2-r0-s0", 0.25), Measurement("norms", "n", "", 3)]
CURE = "delete .*run snakemake again"


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def one_line(error):
    return "\n" not in str(error.value)


# --- rows -----------------------------------------------------------------------------------------


def edit(path):
    path.write_text(path.read_text().replace("0.25", "0.75"))


def keep_the_header(path):
    path.write_text(path.read_text().splitlines()[0] + "\n")


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("with_digest", [True, False])
@pytest.mark.parametrize("damage", [edit, keep_the_header, cut, empty])
def test_damaged_rows_are_refused(tmp_path, damage, with_digest):
    path = tmp_path / "norms.csv"
    measurements.write(path, ROWS)
    assert len(measurements.read(path)) == 2
    damage(path)
    if not with_digest:
        if damage in (edit, cut):  # numbers by hand, say: nobody can tell
            return
        path.with_name("norms.csv.sha256").unlink()
    with pytest.raises(ValueError, match=rf"norms\.csv: damaged .*{CURE}") as error:
        measurements.read([path])
    assert one_line(error)


def test_the_digest_is_one_that_sha256sum_reads(tmp_path):
    path = tmp_path / "norms.csv"
    measurements.write(path, ROWS)
    command = ["sha256sum", "--check", "--status", "norms.csv.sha256"]
    assert subprocess.run(command, cwd=tmp_path).returncode == 0


def test_a_table_of_other_columns_is_named(tmp_path):
    path = tmp_path / "norms.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"norms\.csv: damaged .*columns"):
        measurements.read(path)


def test_a_question_without_rows_fails_where_it_is_asked():
    with pytest.raises(ValueError, match="no rows"):
        measure._check("norms", QUESTIONS["norms"], Measured([]))


# --- arrays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["flipped", "flipped at the end", "cut", "empty", "gone"])
def test_damaged_arrays_are_refused(tmp_path, damage):
    path = tmp_path / "dinov2-r0-s0.npz"
    arrays = {"norms": np.random.default_rng(0).normal(size=(40, 40)), "names": np.array(["a"])}
    files.write_arrays(path, arrays)
    ((name, read),) = inputs.arrays([str(path)]).items()
    assert name == "dinov2-r0-s0" and np.array_equal(read["norms"], arrays["norms"])
    content = path.read_bytes()
    match damage:
        case "flipped":
            flip(path, len(content) // 2)
        case "flipped at the end":  # the zip file's directory
            flip(path, len(content) - 30)
        case "gone":
            path.unlink()
        case _:
            path.write_bytes(content[:-9] if damage == "cut" else b"")
    with pytest.raises(ValueError, match=rf"dinov2-r0-s0\.npz: damaged .*{CURE}") as error:
        inputs.arrays([str(path)])
    assert one_line(error)


# --- the world ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("world") / "val", "val", 3, 32, progress=False)


@pytest.mark.parametrize("name", ["image", "mask", "depth", "labels", "boxes", "box_ends"])
def test_a_damaged_world_is_refused(drawn, tmp_path, name):
    folder = shutil.copytree(drawn, tmp_path / "world-val")
    World(folder)[2]
    array = np.load(folder / f"{name}.npy")
    np.save(folder / f"{name}.npy", np.zeros_like(array))
    with pytest.raises(ConfigError, match=rf"{name}\.npy: damaged.*{CURE}") as error:
        World(folder)[0]
    assert one_line(error)


def test_a_world_without_digests_is_drawn_anew(drawn, tmp_path):
    folder = shutil.copytree(drawn, tmp_path / "world-val")
    header = (folder / "world.json").read_text()
    (folder / "world.json").write_text(header.replace('"sha256"', '"others"'))
    with pytest.raises(ConfigError, match="no prepared split there"):
        World(folder)
    prepare(folder, "val", 3, 32, progress=False)
    assert (folder / "world.json").read_text() == header


@pytest.mark.parametrize("header", ["", "null", "[1]", '{"request"', b"\xff\xfe"])
def test_a_damaged_header_counts_as_no_world(tmp_path, header):
    content = header if isinstance(header, bytes) else header.encode()
    (tmp_path / "world.json").write_bytes(content)
    with pytest.raises(ConfigError, match="no prepared split there"):
        World(tmp_path)


# --- the code -------------------------------------------------------------------------------------


def test_a_checkout_inside_a_foreign_repository_has_no_commit(tmp_path, monkeypatch):
    """A zip of the project, unpacked in somebody's repository."""
    people = {
        f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    package = tmp_path / "project/src/registers"
    package.mkdir(parents=True)
    shutil.copy(measurements.__file__, package)

    def git(*arguments):
        environment = {**os.environ, **people}
        subprocess.run(["git", *arguments], cwd=tmp_path, env=environment, check=True)

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "theirs")
    monkeypatch.setattr(measurements, "__file__", str(package / Path(measurements.__file__).name))
    version = measurements.code_version.__wrapped__
    assert version() == "unknown"
    git("add", ".")
    git("commit", "-q", "-m", "ours")
    assert len(version()) == 10
