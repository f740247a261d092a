"""`registers audit` of a model that a hub on this machine serves, through HF_ENDPOINT."""

import argparse
import json

import planted_release
import pytest
from hub_server import COMMIT, Hub, serving
from planted_vit import NEURONS, WRITER
from safetensors.torch import save
from small_hub import asked

from registers.audit import command
from registers.audit.errors import AuditError

REPOSITORY = "someone/tiny"
CONFIG = {
    "architecture": "deit3_base_patch16_224",
    "model_args": planted_release.ARGUMENTS,
    "num_classes": 0,
    "pretrained_cfg": {"input_size": [3, planted_release.SIDE, planted_release.SIDE]},
}


def run(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def test_a_model_of_the_hub_is_fetched_resumed_and_audited(tmp_path, monkeypatch, capsys):
    images = planted_release.write_images(tmp_path / "flat", {"all": 16})
    weights = save(planted_release.model(*images).state_dict())
    hub = Hub()
    hub.put(REPOSITORY, "config.json", json.dumps(CONFIG).encode())
    hub.put(REPOSITORY, "model.safetensors", weights)
    about = tmp_path / "audit.json"
    asking = (f"hf-hub:{REPOSITORY}@{COMMIT}", "--images", tmp_path / "flat", "--no-html")
    with serving(hub) as address:
        asked(address, tmp_path / "cache", monkeypatch)
        hub.cut_at = len(weights) // 2
        with pytest.raises(AuditError, match=r"cut off at .*; what was fetched is kept"):
            run(*asking)
        hub.cut_at = None
        assert run(*asking, "--json", about, "--fail-on", "outliers") == command.FAILED
        before = len(hub.requests)
        assert run(*asking) == 0
        assert len(hub.requests) == before, "what is pinned and here is not asked for"
    assert "outliers: yes, 6.1 % of patches" in capsys.readouterr().out
    (told,) = json.loads(about.read_text())
    assert told["model"]["revision"] == COMMIT
    assert {(row["layer"], row["neuron"]) for row in told["neurons"][:4]} == {
        (WRITER + 1, neuron) for neuron in NEURONS
    }
