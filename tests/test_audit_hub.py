"""`registers audit` of a model that a hub on this machine serves, through HF_ENDPOINT."""

import argparse
import json
import logging
import re

import planted_release
import pytest
from hub_server import COMMIT, Hub, serving
from planted_vit import NEURONS, WRITER
from safetensors.torch import save
from small_hub import asked

from registers.audit import command
from registers.audit.errors import AuditError

REPOSITORY = "someone/tiny"
RETRY = r"hub: Connection refused; retry \d of 5 in \d s"
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


def test_a_hub_out_of_reach_is_a_line_for_each_retry(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with serving(Hub()) as address:
        asked(address, tmp_path / "cache", monkeypatch)
    with pytest.raises(AuditError, match=r"cannot be fetched \(no network\); .*hf download"):
        run(f"hf-hub:{REPOSITORY}", "--no-html")
    assert len(caplog.messages) == 5
    assert all(re.fullmatch(RETRY, line) for line in caplog.messages)
    assert not logging.getLogger("huggingface_hub.utils._http").filters


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
