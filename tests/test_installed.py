"""The package outside a checkout: what `pip install .` puts into another folder."""

import os
import subprocess
import sys
import zipfile

import pytest
from pipeline import ROOT

LIBRARY = """
import registers, torch
from registers.evals.lost import lost
from registers.outliers import find_cutoff
from registers.tokens import capture
norms = 10 + 2 * torch.rand(200, 64)
norms[:, 0] *= 15
print(registers.__file__, find_cutoff(norms.numpy()).value)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the built wheel unpacked, as pip leaves it, and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(site, folder, *arguments):
    environment = os.environ | {"PYTHONPATH": str(site)}
    environment.pop("REGISTERS_PARAMS", None)
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_it_says_what_it_needs_and_which_version_it_is(site, tmp_path):
    (metadata,) = site.glob("registers-*.dist-info/METADATA")
    needs = {line for line in metadata.read_text().splitlines() if line.startswith("Requires-Dist")}
    for package in ("torch", "timm", "open_clip_torch", "snakemake", "mlflow"):
        name = package.replace("_", "-")
        assert any(name in line.replace("_", "-") for line in needs), package
    result = run(site, tmp_path, "-m", "registers.cli", "--version")
    assert result.returncode == 0 and "0.1.0" in result.stdout, result.stderr


def test_the_science_is_a_library(site, tmp_path):
    result = run(site, tmp_path, "-c", LIBRARY)
    assert result.returncode == 0, result.stderr
    place, cutoff = result.stdout.split()
    assert place.startswith(str(site)) and 12 < float(cutoff) < 150


def test_the_scales_and_the_paper_come_with_it(site, tmp_path):
    """A params.yaml is all that another folder needs."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    result = run(site, tmp_path, "-m", "registers.cli", "check")
    assert result.returncode == 0, result.stderr
    assert "scale laptop:" in result.stdout and "dinov2-giant-r0-s0" in result.stdout


def test_a_wrong_scale_names_those_there_are(site, tmp_path):
    text = (ROOT / "params.yaml").read_text().replace("scale: laptop", "scale: laptpo")
    (tmp_path / "params.yaml").write_text(text)
    result = run(site, tmp_path, "-m", "registers.cli", "check")
    assert result.returncode != 0
    assert "laptpo" in result.stderr and "laptop" in result.stderr and "smoke" in result.stderr
    assert "Traceback" not in result.stderr
