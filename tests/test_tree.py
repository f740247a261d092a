"""MLflow as a reader meets it: a tree of runs, data sets, loadable checkpoints, links that stay."""

import json
import shutil
import uuid
from pathlib import Path
from urllib.parse import unquote

import mlflow
import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient

from registers import artifacts, tracking
from registers.layout import Layout
from registers.measurements import Measurement
from registers.models import checkpoint
from registers.models.backbone import Architecture, build
from registers.stores import opening

TINY = dict(width=8, depth=1, heads=2, patch=4, image=8)
TOP1 = {0: 0.25, 4: 0.5}


def train(layout, registers):
    """What a training leaves: weights, card, and a spool."""
    id = f"dinov2-r{registers}-s0"
    backbone = build(Architecture(**TINY, registers=registers), id)
    layout.training(id).mkdir(parents=True)
    checkpoint.save(layout.checkpoint(id), backbone, {"method": "dinov2", "step": 10})
    tags = dict(method="dinov2", registers=registers, seed=0)
    with tracking.run(layout.results, "train", id, tags, {"size": "tiny"}) as record:
        record.metrics({"loss": 2.0}, 0)
        record.artifact(layout.checkpoint(id).with_suffix(".json"))
    return id


def ask(layout, id, value):
    row = Measurement("linear", "top1", id, value, data="world", token="cls")
    with tracking.run(layout.results, "linear", id, {}, {}) as record:
        record.measurements([row])


def new_uri(empty_store):
    """Of a store in the folder at hand; MLflow keeps one store for each URI, wherever we go."""
    file = f"{uuid.uuid4().hex}.db"
    shutil.copy(empty_store, file)
    return f"sqlite:///{file}"


@pytest.fixture
def uri(tmp_path, monkeypatch, empty_store):
    monkeypatch.chdir(tmp_path)
    return new_uri(empty_store)


@pytest.fixture
def run(uri):
    """(layout, client) of a run of two backbones, delivered to a store of the project's own."""
    layout = Layout(Path("results/smoke"))
    layout.manifest("eval").parent.mkdir(parents=True)
    about = {"spec": "world", "samples": 8}
    for role in ("eval", "images"):
        entries = {s: about | {"split": s, "fingerprint": s * 20} for s in ("train", "val")}
        layout.manifest(role).write_text(json.dumps(entries))
    for registers, value in TOP1.items():
        ask(layout, train(layout, registers), value)
    layout.drawing("figures", "fig08").parent.mkdir(parents=True)
    layout.drawing("figures", "fig08", "png").write_bytes(b"picture")
    layout.page.write_text("page")
    for rule, subject, file in (
        ("draw", "fig08", layout.drawing("figures", "fig08", "png")),
        ("report", "paper", layout.page),
    ):
        with tracking.run(layout.results, rule, subject, {}, {}) as record:
            record.artifact(file)
    assert tracking.deliver("results", uri) == (6, 0)
    return layout, MlflowClient(tracking_uri=uri)


def by_name(client, experiment=opening.EXPERIMENT):
    id = client.get_experiment_by_name(experiment).experiment_id
    return {run.info.run_name: run for run in client.search_runs([id])}


def test_stages_lie_below_backbones_below_the_pipeline(run):
    _, client = run
    runs = by_name(client)
    above = {run.info.run_id: name for name, run in runs.items()} | {None: None}
    tree = {name: above[run.data.tags.get("mlflow.parentRunId")] for name, run in runs.items()}
    assert tree == {
        "smoke": None,
        "dinov2-r0-s0": "smoke",
        "train dinov2-r0-s0": "dinov2-r0-s0",
        "linear dinov2-r0-s0": "dinov2-r0-s0",
        "dinov2-r4-s0": "smoke",
        "train dinov2-r4-s0": "dinov2-r4-s0",
        "linear dinov2-r4-s0": "dinov2-r4-s0",
    }
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["dinov2-r4-s0"].data.metrics["linear/top1"] == 0.5
    shape = {"method": "dinov2", "registers": "4", "seed": "0", "size": "tiny"}
    assert runs["dinov2-r4-s0"].data.params == shape
    line = client.get_metric_history(runs["smoke"].info.run_id, "linear/top1 dinov2")
    assert {point.step: point.value for point in line} == TOP1  # the step: registers


def test_drawings_are_apart_and_their_files_at_the_pipeline(run):
    _, client = run
    assert set(by_name(client, opening.DRAWINGS)) == {"draw fig08", "report paper"}
    pipeline = by_name(client)["smoke"].info.run_id
    paths = [file.path for file in client.list_artifacts(pipeline)]
    assert paths == ["figures", "paper.html"]
    kinds = {e.name: e.tags.get(opening.KIND_TAG) for e in client.search_experiments()}
    assert kinds[opening.EXPERIMENT] == kinds[opening.DRAWINGS] == "custom_model_development"


def test_data_sets_and_the_checkpoint_are_inputs(run):
    _, client = run
    runs = by_name(client)
    sets = {
        name: {(i.dataset.name, i.dataset.digest) for i in runs[name].inputs.dataset_inputs}
        for name in ("train dinov2-r4-s0", "linear dinov2-r4-s0")
    }
    training, evaluation = ("world train", ("train" * 20)[:36]), ("world val", ("val" * 20)[:36])
    assert sets["train dinov2-r4-s0"] == {training}
    assert sets["linear dinov2-r4-s0"] == {training, evaluation}
    (made,) = runs["train dinov2-r4-s0"].outputs.model_outputs
    asked = client.get_run(runs["linear dinov2-r4-s0"].info.run_id)  # a search leaves models out
    (used,) = asked.inputs.model_inputs
    assert made.model_id == used.model_id
    model = client.get_logged_model(made.model_id)
    assert model.name == "dinov2-r4-s0" and model.status == "READY"
    (metric,) = model.metrics
    assert (metric.key, metric.value, metric.dataset_name) == ("linear/top1", 0.5, "world val")


def test_a_logged_model_is_loaded_from_the_weights_in_place(run, uri):
    layout, client = run
    (made,) = by_name(client)["train dinov2-r4-s0"].outputs.model_outputs
    mlflow.set_tracking_uri(uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{made.model_id}")
    images = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    vit = checkpoint.load(layout.checkpoint("dinov2-r4-s0")).vit.eval()
    with torch.inference_mode():
        expected = vit.forward_features(torch.from_numpy(images))[:, 0]
    assert np.allclose(loaded.predict(images), expected, atol=1e-6)
    assert loaded.get_raw_model().registers == 4
    assert not list(Path("mlruns").rglob("*.safetensors"))  # no copy

    layout.checkpoint("dinov2-r4-s0").write_bytes(b"other weights")
    with pytest.raises(ValueError, match="trained again since"):
        mlflow.pyfunc.load_model(f"models:/{made.model_id}")


def test_a_project_may_be_moved_and_links_ask_for_keys(run, uri, tmp_path, monkeypatch):
    key = "smoke/linear/dinov2-r4-s0"
    assert unquote(tracking.links(uri, [key])[key]).endswith(f"&searchFilter=tags.key = '{key}'")
    moved = tmp_path.with_name(f"{tmp_path.name}-moved")
    tmp_path.rename(moved)
    monkeypatch.chdir(moved)
    Path(uri.removeprefix("sqlite:///")).rename("moved.db")
    client = MlflowClient(tracking_uri="sqlite:///moved.db")
    pipeline = by_name(client)["smoke"].info.run_id
    assert [file.path for file in client.list_artifacts(pipeline)] == ["figures", "paper.html"]


def test_the_list_of_figures_is_read_once():
    """Read for the description of every run, it took a third of filling a store."""
    assert artifacts.load() is artifacts.load()


def test_a_store_that_is_new_is_filled_with_the_same_links(run, uri, empty_store):
    """What `registers ui` does in a fresh clone, whose marks of delivery are of another store."""
    keys = ["smoke/linear/dinov2-r4-s0", "smoke/draw/fig08"]
    other = new_uri(empty_store)
    assert tracking.deliver("results", other) == (6, 0)
    assert tracking.links(other, keys) == tracking.links(uri, keys)
    runs = tracking.find_runs(other, keys)
    assert {key: experiment for key, (experiment, _) in runs.items()} == {
        keys[0]: "1",
        keys[1]: "2",
    }
