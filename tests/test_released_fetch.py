"""Published models in the place of trainings: fetched from a hub on this machine, with faults."""

import json
import shutil
from collections import namedtuple

import pytest
import torch
from hub_server import COMMIT, serving
from safetensors.torch import save
from small_hub import MODELS, asked, filled_hub, model, write_catalogue

from registers.audit import hub as audit_hub
from registers.models import checkpoint
from registers.released import lock, start
from registers.released.fetch import fetch
from registers.settings import released
from registers.settings.errors import ConfigError
from registers.settings.load import load_settings

ID = "dinov2-base-r4-s0"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Settings of scale released with tiny models, in a folder of its own."""
    write_catalogue(tmp_path / "released.yaml")
    monkeypatch.setattr(released, "CATALOGUE", tmp_path / "released.yaml")
    monkeypatch.chdir(tmp_path)
    return load_settings({"scale": "released"})


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with tiny models that huggingface_hub asks, and an empty cache."""
    hub = filled_hub()
    with serving(hub) as address:
        asked(address, tmp_path / "cache", monkeypatch)
        yield hub


def refused(settings, name=ID):
    """What a user reads where fetching fails: one line."""
    with pytest.raises(ConfigError) as error:
        fetch(settings, name)
    line = str(error.value)
    assert "\n" not in line
    return line


def part(tmp_path):
    """Bytes of unfinished downloads in the cache."""
    return sum(path.stat().st_size for path in tmp_path.glob("cache/*/blobs/*.part"))


# --- what is fetched is what timm builds


@pytest.mark.parametrize("name", MODELS)
def test_a_fetched_checkpoint_computes_what_timm_computes(settings, hub, name):
    line = fetch(settings, name)
    assert COMMIT in line and "apache-2.0" in line
    backbone = checkpoint.load(settings.layout.checkpoint(name))
    vit = model(name, dynamic_img_size=True)
    side = 4 * backbone.architecture.patch + 2 * backbone.architecture.patch  # not its own size
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        patches, prefix = vit.forward_intermediates(
            images, norm=False, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
        )[-1]
        torch.testing.assert_close(backbone.residual(images), torch.cat([prefix, patches], 1))
        observed = backbone.observe(images)
    expected = torch.cat([prefix, patches], 1).norm(dim=-1)
    torch.testing.assert_close(observed.norms[:, -1], expected)
    assert backbone.registers == vit.num_reg_tokens
    assert backbone.card["published"]["commit"] == COMMIT


def test_weights_lie_on_the_disk_once_and_plain_timm_loads_them(settings, hub, tmp_path):
    import timm
    from safetensors.torch import load_file

    fetch(settings, ID)
    path = settings.layout.checkpoint(ID)
    (blob,) = tmp_path.glob("cache/*/blobs/*")
    assert path.stat().st_ino == blob.stat().st_ino
    card = json.loads(path.with_suffix(".json").read_text())
    vit = timm.create_model(card["timm"]["name"], **card["timm"]["arguments"])
    vit.load_state_dict(load_file(path))
    assert card["published"]["revision"] == "main"  # not pinned, as the run says


def test_a_file_with_other_names_and_a_head_is_put_under_timms_names(settings, hub):
    vit = model(ID)
    tensors = {k: v.half().float() for k, v in vit.state_dict().items()}
    theirs = tensors | {"mask_token": torch.zeros(1, 32), "head.weight": torch.zeros(5, 32)}
    hub.put(f"timm/{MODELS[ID][0]}", "model.safetensors", save(theirs))
    fetch(settings, ID)
    backbone = checkpoint.load(settings.layout.checkpoint(ID))
    assert torch.equal(backbone.vit.blocks[0].mlp.fc1.weight, tensors["blocks.0.mlp.fc1.weight"])


def test_another_models_file_is_refused(settings, hub):
    other = save(model("dinov2-small-r0-s0").state_dict())
    hub.put(f"timm/{MODELS[ID][0]}", "model.safetensors", other)
    assert "does not fit" in refused(settings)
    assert not settings.layout.checkpoint(ID).exists()


# --- faults on the way: one line, and nothing that was fetched is lost


def test_a_connection_that_is_cut_off_resumes_in_the_same_call_and_in_the_next(
    settings, hub, tmp_path
):
    content = hub.files[f"timm/{MODELS[ID][0]}"]["model.safetensors"]
    hub.cut_at = len(content) // 2
    line = refused(settings)
    assert "cut off" in line and "run again to resume" in line
    there = part(tmp_path)
    assert hub.cut_at - 1000 < there <= hub.cut_at
    hub.cut_at = None
    hub.sent = 0
    fetch(settings, ID)
    assert hub.sent == len(content) - there  # the rest alone
    assert f"bytes={there}-" in "".join(hub.requests) and part(tmp_path) == 0
    assert settings.layout.checkpoint(ID).read_bytes() == content


def test_a_wrong_checksum_is_told_and_the_next_call_fetches_anew(settings, hub, tmp_path):
    hub.damage = True
    assert "SHA-256" in refused(settings)
    assert part(tmp_path) == 0 and not settings.layout.checkpoint(ID).exists()
    hub.damage = False
    fetch(settings, ID)
    checkpoint.load(settings.layout.checkpoint(ID))


def test_damage_in_the_cache_is_told(settings, hub, tmp_path):
    fetch(settings, ID)
    shutil.rmtree(settings.layout.training(ID))
    (blob,) = tmp_path.glob("cache/*/blobs/*")
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    assert f"{blob}: damaged" in refused(settings)


def test_a_file_that_was_published_truncated_is_told(settings, hub):
    repository = f"timm/{MODELS[ID][0]}"
    hub.put(repository, "model.safetensors", hub.files[repository]["model.safetensors"][:-100])
    assert "damaged" in refused(settings)


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((401, "GatedRepo"), "gated; accept its licence"),
        ((403, "GatedRepo"), "gated; accept its licence"),
        ((401, "RepoNotFound"), "no such repository"),
        ((403, ""), "the hub answered 403"),
        ((503, ""), "the hub answered 503"),
    ],
)
def test_a_refusal_of_the_hub_is_one_line(settings, hub, refusal, words):
    hub.refusal = refusal
    assert words in refused(settings)


def test_a_full_disk_is_told_before_and_during_the_download(settings, hub, tmp_path, monkeypatch):
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: Usage(1, 1, 10))
        assert "MB are free" in refused(settings)

    def write_half(url, file, **options):
        file.write(b"x" * 10)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("huggingface_hub.file_download.http_get", write_half)
        assert "No space left on device" in refused(settings)
    assert part(tmp_path) == 10


def test_what_is_not_in_the_catalogue_is_refused_with_its_neighbour(settings, hub):
    assert "dinov2-base-r4-s0" in refused(settings, "dinov2-base-r5-s0")


# --- before a run


def test_without_network_one_line_says_what_is_missing_and_how_to_bring_it(
    settings, hub, monkeypatch
):
    fetch(settings, ID)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError) as error:
        start.check(settings)
    line = str(error.value)
    assert "\n" not in line and "HF_HUB_OFFLINE is set" in line
    assert f"hf download timm/{MODELS['dino-base-r0-s0'][0]} model.safetensors" in line
    assert ID not in line.partition(" are not")[0]  # it is here
    monkeypatch.setattr(audit_hub, "is_offline", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="no network to http://127"):
        start.check(settings)


def test_a_run_says_what_it_fetches_before_it_does(settings, hub):
    start.check(settings)  # the hub answers
    text = start.plan(settings)
    assert "8 to fetch, 8 MB" in text and "main, not pinned" in text and "apache-2.0" in text
    assert not any(request.startswith("GET") for request in hub.requests)
    for name in MODELS:
        fetch(settings, name)
    assert "all are on this machine" in start.plan(settings)


# --- pinned


OTHER = "f" * 40


def pinned(settings, hub):
    """The lock after a run that fetched the first model, and main on the hub gone on since."""
    fetch(settings, ID)
    line = lock.pin(settings)
    hub.commit(OTHER)
    hub.put(f"timm/{MODELS[ID][0]}", "model.safetensors", save(model(ID, seed=1).state_dict()))
    return line


def test_a_lock_holds_later_runs_to_what_was_fetched(settings, hub, tmp_path):
    line = pinned(settings, hub)
    repository = f"timm/{MODELS[ID][0]}"
    assert line.startswith(f"{repository} at {COMMIT}") and "released.lock.yaml" in line
    locked = released.catalogue()[ID]
    assert locked.pinned and locked.revision == COMMIT and len(locked.sha256) == 64
    assert "nothing new" in lock.pin(settings)
    assert lock.identity(settings.layout, locked)["revision"] == "main", "nothing is fetched anew"

    first = settings.layout.checkpoint(ID).read_bytes()
    for folder in ("cache", "results"):
        shutil.rmtree(tmp_path / folder)
    text = start.plan(settings)
    assert f"{repository}: main on the hub is another commit by now" in text
    assert COMMIT in text
    fetch(settings, ID)
    assert settings.layout.checkpoint(ID).read_bytes() == first
    assert lock.identity(settings.layout, locked)["revision"] == COMMIT
    assert "by now" not in start.plan(settings), "what is here is not asked for"


def test_other_weights_than_the_pinned_ones_are_refused(settings, hub, tmp_path):
    pinned(settings, hub)
    path = released.lock_file()
    path.write_text(path.read_text().replace(COMMIT, OTHER))
    shutil.rmtree(tmp_path / "results")
    assert "is pinned; must be the pinned file, or be pinned anew" in refused(settings)
    assert not settings.layout.checkpoint(ID).exists()


def test_nothing_is_pinned_before_a_run(settings, hub):
    with pytest.raises(ConfigError, match="no model was fetched"):
        lock.pin(settings)
    released.lock_file().write_text("timm/x: 5\n")
    with pytest.raises(ConfigError, match=r"released\.lock\.yaml"):
        released.catalogue()
