"""The loop: killed and resumed = uninterrupted, two processes = one, divergence stops, batches do not depend on the machine."""

import csv
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
from registers.methods.method import Method
from registers.models.backbone import build
from registers.settings.backbone_id import BackboneId
from registers.settings.load import load_settings


class Noise:
    """24 fixed noise images in three classes whose mean brightness differs."""

    classes, attributes, fingerprint = ("dark", "grey", "bright"), {}, "noise"

    def __len__(self):
        return 24

    def __getitem__(self, index):
        pixels = np.random.default_rng(index).integers(0, 100, (16, 16, 3)) + 70 * (index % 3)
        return Sample(Image.fromarray(pixels.astype(np.uint8)), label=index % 3)


class Toy(Method):
    """A linear head on [CLS], with random noise in augmentation and step, so that every generator matters."""

    role, normalization = "labels", ((0.5,) * 3, (0.5,) * 3)

    def __init__(self, settings, id, dataset, fail_at=None):
        super().__init__(settings, id, dataset)
        self.backbone = build(self.architecture(), str(id))
        self.head = torch.nn.Linear(self.backbone.architecture.width, 3)
        self.fail_at = fail_at

    def augment(self, sample):
        image = torch.from_numpy(np.asarray(sample.image).copy()).permute(2, 0, 1) / 255
        return {"image": image + 0.1 * torch.randn_like(image), "label": torch.tensor(sample.label)}

    def forward(self, batch, progress):
        scale = (
            1 + 0.1 * torch.rand(()) + 0.1 * np.random.rand()
        )  # one draw a step, equal on all processes
        logits = self.head(self.backbone(batch["image"] * scale).cls)
        loss = torch.nn.functional.cross_entropy(logits, batch["label"])
        return {"loss": loss * float("nan") if progress.step == self.fail_at else loss}

    def optimizer(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)

    def schedule(self, optimizer, progress):
        for group in optimizer.param_groups:
            group["lr"] = self.recipe.lr * (1 - progress.step / progress.steps)
        return {"lr": group["lr"]}


def settings(tmp_path, **changes):
    given = {"scale": "smoke", "mlflow_uri": f"sqlite:///{tmp_path}/mlflow.db", "device": "cpu"}
    loaded = load_settings(given)
    recipe = loaded.recipes["deit3"].model_copy(
        update={"size": "tiny", "steps": 8, "batch": 8, "warmup": 0, "lr": 1e-3}
    )
    return loaded.model_copy(
        update={
            "image_size": 16,
            "recipes": {"deit3": recipe},
            "checkpoint_every": 3,
            "log_every": 1,
            "fractions": (0.0, 0.5),
            **changes,
        }
    )


def run(tmp_path, out="out", **choices):
    chosen = settings(tmp_path)
    torch.manual_seed(0)
    method = Toy(chosen, BackboneId("deit3", 2, 0), Noise(), **choices)
    os.chdir(tmp_path)
    probe = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return train.train(method, Noise(), chosen, tmp_path / out, probe)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(folder):
    return load_file(folder / "last.safetensors")


def test_a_killed_run_resumes_to_bit_identical_weights_and_the_same_history(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(tmp_path, "whole")

    save, calls = train.checkpoint.save_state, []

    def save_and_die(path, state):
        save(path, state)
        calls.append(state["step"])
        if len(calls) == 2:
            raise KeyboardInterrupt  # as a SIGINT between two steps

    monkeypatch.setattr(train.checkpoint, "save_state", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "killed")
    assert (
        calls == [3, 6]
        and (tmp_path / "killed/unfinished/state.pt").exists()
        and not (tmp_path / "killed/last.safetensors").exists()
    )
    monkeypatch.setattr(train.checkpoint, "save_state", save)
    assert not list(
        (tmp_path / "killed").glob("*.safetensors")
    )  # nothing that Snakemake would delete as a half-made output
    run(tmp_path, "killed")

    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    histories = [table(tmp_path / d / "history.csv") for d in ("whole", "killed")]
    assert histories[0] == histories[1] and len(histories[0]) == 8
    assert not (tmp_path / "killed/unfinished").exists()
    middle = [load_file(tmp_path / d / "at050.safetensors") for d in ("whole", "killed")]
    assert all(torch.equal(middle[0][k], middle[1][k]) for k in middle[0])
    assert any(not torch.equal(middle[0][k], whole[k]) for k in whole)


def test_a_half_written_state_is_not_taken_for_a_state(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "state.pt"
    train.checkpoint.save_state(path, {"step": 1})
    monkeypatch.setattr(
        torch,
        "save",
        lambda state, p: (
            Path(p).write_bytes(b"half"),
            (_ for _ in ()).throw(OSError("disk full")),
        ),
    )
    with pytest.raises(OSError, match="disk full"):
        train.checkpoint.save_state(path, {"step": 2})
    assert train.checkpoint.load_state(path) == {"step": 1}


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        train.DivergedError, match=r"deit3-r2-s0.*not a number at step 5.*state\.pt"
    ):
        run(tmp_path, fail_at=5)
    state = train.checkpoint.load_state(tmp_path / "out/unfinished/state.pt")
    assert state["step"] == 3 and all(torch.isfinite(v).all() for v in state["method"].values())


def test_a_diverging_loss_stops_the_run(tmp_path):
    watch = train.Watch("x", [])
    with pytest.raises(train.DivergedError, match="5 times its start"):
        for step in range(200):
            watch.loss(step, 2.0 if step < 20 else 50.0, tmp_path / "state.pt")
    calm = train.Watch("x", [])
    for step in range(200):  # one bad batch is no divergence
        calm.loss(step, 60.0 if step == 50 else 2.0, tmp_path / "state.pt")


@pytest.mark.parametrize("repeats", [1, 2])
def test_two_processes_share_each_batch_and_keep_mirrored_pairs_together(tmp_path, repeats):
    method = Toy(settings(tmp_path), BackboneId("deit3", 0, 0), Noise())
    method.repeats = repeats
    whole = list(train._Order(24, method, 0, 1, 0))
    parts = [list(train._Order(24, method, 0, 2, rank)) for rank in (0, 1)]
    for step, batch in enumerate(whole):
        mine = [parts[rank][step] for rank in (0, 1)]
        assert sorted(mine[0] + mine[1]) == sorted(batch)
        pairs = {frozenset((batch[i], batch[-1 - i])) for i in range(4)}
        assert {frozenset((part[i], part[-1 - i])) for part in mine for i in range(2)} == pairs
    drawn = [index for batch in whole for _, index in batch][: 24 * repeats]
    assert sorted(drawn) == sorted(list(range(24)) * repeats)[: len(drawn)]
    later = list(train._Order(24, method, 5, 1, 0))
    assert later == whole[5:]  # a resumed run draws what it would have drawn


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
import torch; torch.set_num_threads(1)
from test_train import run
run(Path({tmp!r}), {out!r})
"""


def test_two_processes_train_as_one_does(tmp_path):
    losses = {}
    for out, launcher in (
        ("one", [sys.executable]),
        (
            "two",
            [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc_per_node",
                "2",
            ],
        ),
    ):
        script = tmp_path / f"{out}.py"
        script.write_text(
            SCRIPT.format(tests=str(Path(__file__).parent), tmp=str(tmp_path), out=out)
        )
        subprocess.run([*launcher, str(script)], check=True, capture_output=True, timeout=120)
        losses[out] = [float(row["loss"]) for row in table(tmp_path / out / "history.csv")]
    assert losses["one"] == pytest.approx(losses["two"], rel=1e-5)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert max((one[k] - two[k]).abs().max() for k in one) < 1e-4
