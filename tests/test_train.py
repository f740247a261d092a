"""The loop: a killed run = an uninterrupted one, two processes = one, divergence stops it."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from registers import train
from registers.data.sample import Sample
from registers.methods.method import Method, build
from registers.models import checkpoint
from registers.settings.backbone_id import BackboneId
from registers.settings.errors import ConfigError
from registers.settings.load import load_settings


class Noise:
    """24 fixed noise images in three classes whose mean brightness differs."""

    classes = ("dark", "grey", "bright")
    attributes = {}
    fingerprint = "noise"

    def __len__(self):
        return 24

    def __getitem__(self, index):
        pixels = np.random.default_rng(index).integers(0, 100, (16, 16, 3)) + 70 * (index % 3)
        return Sample(Image.fromarray(pixels.astype(np.uint8)), label=index % 3)


class Toy(Method):
    """A linear head on [CLS]; noise in augmentation and step, so that every generator matters."""

    normalization = ((0.5,) * 3, (0.5,) * 3)

    def __init__(self, settings, id, dataset, fail_at=None):
        super().__init__(settings, id, dataset)
        self.backbone = self.build_backbone()
        self.head = torch.nn.Linear(self.backbone.architecture.width, 3)
        self.fail_at = fail_at

    def augment(self, sample):
        image = torch.from_numpy(np.asarray(sample.image).copy()).permute(2, 0, 1) / 255
        return {"image": image + 0.1 * torch.randn_like(image), "label": torch.tensor(sample.label)}

    def forward(self, batch, progress):
        # one draw a step, equal on all processes
        scale = 1 + 0.1 * torch.rand(()) + 0.1 * np.random.rand()
        logits = self.head(self.backbone(batch["image"] * scale).cls)
        loss = torch.nn.functional.cross_entropy(logits, batch["label"])
        return {"loss": loss * float("nan") if progress.step == self.fail_at else loss}

    def optimizer(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)

    def schedule(self, optimizer, progress):
        lr = self.recipe.lr * (1 - progress.step / progress.steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        return {"lr": lr}


def settings(folder, **overrides):
    """Scale smoke with eight steps of DeiT-III's recipe, saved every third step."""
    recipe = {"steps": 8, "batch": 8, "warmup": 0, "lr": 1e-3}
    few = {f"recipes.deit3.{key}": value for key, value in recipe.items()}
    few |= {"checkpoint_every": 3, "log_every": 1, "fractions": [0.0, 0.5]}
    return load_settings(
        {
            "scale": "smoke",
            "mlflow_uri": f"sqlite:///{folder}/mlflow.db",
            "device": "cpu",
            "precision": overrides.pop("precision", "auto"),
            "overrides": few | overrides,
        }
    )


def run(folder, out="out", fail_at=None, **overrides):
    os.chdir(folder)
    torch.manual_seed(0)
    id = BackboneId("deit3", 2, 0)
    method = Toy(settings(folder, **overrides), id, Noise(), fail_at=fail_at)
    return train.train(method, Noise(), folder / out)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_store(monkeypatch):
    """A new MLflow store takes seconds; what is delivered is test_tracking's."""
    monkeypatch.setattr(train.tracking, "deliver", lambda *arguments, **options: (0, 0))


@pytest.fixture
def killed_at(monkeypatch):
    """killed_at(n): raise KeyboardInterrupt, as a SIGINT does, after the n-th state was saved."""

    def arm(count):
        save = checkpoint.save_state
        steps = []

        def save_and_die(path, state):
            save(path, state)
            steps.append(state["step"])
            if len(steps) == count:
                monkeypatch.setattr(checkpoint, "save_state", save)
                raise KeyboardInterrupt

        monkeypatch.setattr(checkpoint, "save_state", save_and_die)
        return steps

    return arm


def weights(folder, name="last"):
    return load_file(folder / f"{name}.safetensors")


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


# --- resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_killed_run_resumes_to_the_same_weights_and_history(
    tmp_path, monkeypatch, killed_at, precision
):
    monkeypatch.chdir(tmp_path)
    run(tmp_path, "whole", precision=precision)
    steps = killed_at(2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "killed", precision=precision)
    assert steps == [3, 6]
    unfinished = tmp_path / "killed/unfinished"
    assert (unfinished / "state.pt").exists()
    # nothing that Snakemake would delete as a half-made output
    assert not list((tmp_path / "killed").glob("*.safetensors"))
    (unfinished / "state.pt.partial").write_bytes(b"left by kill -9")
    run(tmp_path, "killed", precision=precision)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert same(weights(whole), weights(killed))
    assert same(weights(whole, "at050"), weights(killed, "at050"))
    assert not same(weights(whole), weights(whole, "at050"))
    assert len(table(whole / "history.csv")) == 8
    for file in whole.iterdir():
        assert (killed / file.name).read_bytes() == file.read_bytes(), file.name
    assert {file.name for file in whole.iterdir()} == {file.name for file in killed.iterdir()}


@pytest.mark.parametrize(
    ("change", "resumes"),
    [
        ({}, True),
        ({"linear.iterations": 7}, True),
        ({"log_every": 2}, True),
        ({"fractions": [0.25]}, False),
        ({"precision": "bf16-mixed"}, False),
        ({"recipes.deit3.lr": 2e-3}, False),
    ],
)
def test_a_run_resumes_unless_what_its_weights_depend_on_has_changed(
    tmp_path, monkeypatch, killed_at, change, resumes
):
    monkeypatch.chdir(tmp_path)
    killed_at(1)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    steps = []
    schedule = Toy.schedule
    monkeypatch.setattr(
        Toy, "schedule", lambda self, o, p: steps.append(p.step) or schedule(self, o, p)
    )
    run(tmp_path, **change)
    assert steps[0] == (3 if resumes else 0)
    fractions = change.get("fractions", [0.0, 0.5])
    expected = {f"at{round(100 * fraction):03d}" for fraction in fractions} | {"last"}
    assert {path.stem for path in (tmp_path / "out").glob("*.safetensors")} == expected


def test_a_run_of_two_versions_of_the_code_is_of_neither(tmp_path, monkeypatch, killed_at):
    monkeypatch.chdir(tmp_path)
    killed_at(1)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    code = train.training_digest("registers.methods.deit3")
    monkeypatch.setattr(train, "training_digest", lambda recipe: "0123456789ab")
    killed_at(1)
    with pytest.raises(KeyboardInterrupt):  # and killed once more
        run(tmp_path)
    run(tmp_path)
    assert checkpoint.card(tmp_path / "out/at000")["code"] == code
    assert checkpoint.card(tmp_path / "out/last")["code"] == ""


@pytest.mark.parametrize(
    ("steps", "fractions"),
    [(1, [0.0, 0.25, 0.5]), (4, [0.0, 0.1]), (4, [0.9, 0.99]), (3, [0.0, 0.3, 0.34, 0.99])],
)
def test_fractions_that_share_a_step_leave_a_file_each(tmp_path, monkeypatch, steps, fractions):
    monkeypatch.chdir(tmp_path)
    run(tmp_path, fractions=fractions, **{"recipes.deit3.steps": steps})
    for fraction in fractions:
        card = checkpoint.card(tmp_path / f"out/at{round(100 * fraction):03d}")
        assert card["step"] == round(fraction * steps)
    assert checkpoint.card(tmp_path / "out/last")["step"] == steps


@pytest.mark.parametrize(("lost", "first"), [("at038", 3), ("at000", 0)])
def test_a_resumed_run_writes_the_checkpoints_that_are_lost(
    tmp_path, monkeypatch, killed_at, lost, first
):
    """That of the saved step from the state; an earlier one by training from the beginning."""
    monkeypatch.chdir(tmp_path)
    fractions = [0.0, 0.38]
    run(tmp_path, "whole", fractions=fractions)
    killed_at(1)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, fractions=fractions)
    (tmp_path / f"out/unfinished/{lost}.json").unlink()
    steps = []
    schedule = Toy.schedule
    monkeypatch.setattr(
        Toy, "schedule", lambda self, o, p: steps.append(p.step) or schedule(self, o, p)
    )
    run(tmp_path, fractions=fractions)
    assert steps[0] == first
    assert same(weights(tmp_path / "whole", lost), weights(tmp_path / "out", lost))


def test_a_half_written_state_is_not_taken_for_a_state(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    checkpoint.save_state(path, {"step": 1})

    def full_disk(state, file):
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save_state(path, {"step": 2})
    assert checkpoint.load_state(path) == {"step": 1}


# --- divergence -----------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    message = r"deit3-r2-s0.*not a number at step 5.*state\.pt"
    with pytest.raises(train.DivergedError, match=message):
        run(tmp_path, fail_at=5)
    state = checkpoint.load_state(tmp_path / "out/unfinished/state.pt")
    assert state["step"] == 3
    assert all(torch.isfinite(tensor).all() for tensor in state["method"].values())


def test_a_diverging_loss_stops_the_run(tmp_path):
    watch = train.Watch("x", [])
    with pytest.raises(train.DivergedError, match="5 times its start"):
        for step in range(200):
            watch.check(step, 2.0 if step < 20 else 50.0, tmp_path / "state.pt")
    calm = train.Watch("x", [])
    for step in range(200):  # one bad batch is no divergence
        calm.check(step, 60.0 if step == 50 else 2.0, tmp_path / "state.pt")


# --- what is logged and built ---------------------------------------------------------------------


def test_the_log_holds_the_norms_of_the_first_images_as_the_backbone_sees_them(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run(tmp_path)
    images = torch.stack([_seen(Noise()[i].image) for i in range(16)])
    backbone = checkpoint.load(tmp_path / "out/last.safetensors")
    norms = backbone.split(backbone.residual(images)).patches.norm(dim=-1)
    last = table(tmp_path / "out/history.csv")[-1]
    assert float(last["norms/median"]) == pytest.approx(float(np.median(norms)), rel=1e-6)
    assert float(last["registers/spread"]) > 0


def _seen(image):
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 127.5 - 1


def test_a_method_is_built_from_its_seed(tmp_path):
    one, two, other = (
        build(settings(tmp_path), BackboneId("deit3", 1, seed), Noise()).backbone.vit.state_dict()
        for seed in (0, 0, 1)
    )
    assert same(one, two) and not same(one, other)


def test_a_method_without_a_recipe_is_named(tmp_path):
    some = settings(tmp_path)
    few = some.model_copy(update={"recipes": {"mae": some.recipes["mae"]}})
    with pytest.raises(ConfigError, match=r"deit3-r0-s0: scale smoke has no recipe deit3.*mae"):
        build(few, BackboneId("deit3", 0, 0), Noise())


def test_a_recipe_that_leaves_a_question_open_cannot_be_built(tmp_path):
    class Open(Method):
        pass

    with pytest.raises(TypeError, match=r"augment.*forward.*optimizer.*schedule"):
        Open(settings(tmp_path), BackboneId("deit3", 0, 0), Noise())


# --- two processes --------------------------------------------------------------------------------

SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
import torch; torch.set_num_threads(1)
from test_train import run, train
train.tracking.deliver = lambda *arguments, **options: (0, 0)
run(Path({folder!r}), {out!r})
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def test_two_processes_train_as_one_does(tmp_path):
    losses = {}
    for out, launcher in (("one", [sys.executable]), ("two", TORCHRUN)):
        script = tmp_path / f"{out}.py"
        tests = str(Path(__file__).parent)
        script.write_text(SCRIPT.format(tests=tests, folder=str(tmp_path), out=out))
        subprocess.run([*launcher, str(script)], check=True, capture_output=True, timeout=120)
        losses[out] = [float(row["loss"]) for row in table(tmp_path / out / "history.csv")]
    assert losses["one"] == pytest.approx(losses["two"], rel=1e-5)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert max((one[key] - two[key]).abs().max() for key in one) < 1e-4
    cards = [json.loads((tmp_path / out / "last.json").read_text()) for out in ("one", "two")]
    assert cards[0]["identity"] == cards[1]["identity"]


def test_a_batch_that_two_processes_cannot_share_is_named(tmp_path):
    method = Toy(settings(tmp_path, **{"recipes.deit3.batch": 6}), BackboneId("deit3", 0, 0), [])

    class Two:
        world_size, global_rank = 2, 0

    with pytest.raises(ConfigError, match=r"deit3\.batch = 6: must be a multiple of 4 on 2 proc"):
        train._batches(method, Noise(), 0, Two())
