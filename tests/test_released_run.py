"""Scale released through Snakemake, from a hub on this machine to figures, at tiny size."""

import json
import re

import planted_release
import pytest
import yaml
from hub_server import serving
from pipeline import CHECKOUT, ROOT, copy_parts, planned, snakemake
from safetensors.torch import save
from small_hub import MODELS, filled_hub, write_catalogue

IDS = ("dinov2-base-r0-s0", "dinov2-base-r4-s0")
ALL = [*IDS, planted_release.PLAIN, planted_release.ADDED]
SETTINGS = {"scale": "released", "models": ALL, "data": "photos:flat"}
TARGETS = ("reports/released-flat/figures/fig07.csv",)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout whose catalogue has tiny models, and images with flat parts."""
    folder = tmp_path_factory.mktemp("released")
    copy_parts(ROOT, folder, CHECKOUT)
    write_catalogue(folder / "paper" / "released.yaml", IDS, planted_release.entries())
    scale = folder / "workflow" / "scales" / "released.yaml"
    content = yaml.safe_load(scale.read_text())
    content |= {"image_size": 112, "threads": 1}
    content["bank"] = {"images": 16, "sample": 8, "batch": 8}
    content["maps"] = {"images": 2, "size": 112}
    scale.write_text(yaml.safe_dump(content))
    (folder / "paper" / "released.lock.yaml").unlink(missing_ok=True)
    images(folder)
    return folder


def images(checkout):
    """Those that the models look at, and where they are flat: the same ones in every call."""
    return planted_release.write_images(checkout / "data" / "flat", {"all": 16})


def test_without_network_no_job_starts_and_one_line_says_what_to_bring(checkout, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(checkout / "empty"))
    output = snakemake(checkout, targets=TARGETS, settings=SETTINGS, ok=False)
    (line,) = [line for line in output.splitlines() if "hf download" in line]
    assert f"hf download timm/{MODELS[IDS[0]][0]} model.safetensors" in line
    assert "HF_HUB_OFFLINE is set" in line and str(checkout / "empty" / "hub") in line
    assert not (checkout / "results" / "released-flat").exists()


def test_published_models_are_fetched_and_drawn_like_trained_ones(checkout, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HOME", str(checkout / "home"))
    hub = filled_hub(IDS)
    planted = save(planted_release.model(*images(checkout)).state_dict())
    hub.put(f"timm/{planted_release.NAME}", "model.safetensors", planted)
    with serving(hub) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        output = snakemake(checkout, targets=TARGETS, settings=SETTINGS)
    assert "3 published models" in output and "3 to fetch" in output
    drawn = checkout / TARGETS[0]
    assert set(ALL) == set(re.findall(r"[a-z0-9]+-base-r\d-s0(?:-tt)?", drawn.read_text()))
    card = checkout / "results/released-flat/checkpoints/dinov2-base-r4-s0/last.json"
    assert json.loads(card.read_text())["published"]["repository"].endswith("reg4_dinov2.lvd142m")
    caption = drawn.with_suffix(".txt").read_text()
    assert "without registers DeiT-III" in caption.replace("Without", "without")
    assert "registers of DeiT-III were added at test time" in caption
    again = snakemake(checkout, "-n", targets=TARGETS, settings=SETTINGS)
    assert planned(again) == {}, "a second run has nothing to do"
