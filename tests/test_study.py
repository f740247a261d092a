"""The emergence study: the four conditions find a planted effect and nothing else, runs resume,
and the sweep is sound."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from registers import tracking
from registers.settings.base import build
from registers.settings.errors import ConfigError
from registers.study.examine import examine
from registers.study.net import Net, Seen
from registers.study.regime import Regime, TokenRegime, regime_of
from registers.study.run import again, run
from registers.study.scenes import draw
from registers.study.sweep import Sweep, Variant, read_sweep
from registers.study.worlds import scenes

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
SMALL = dict(grid=4, width=16, depth=2, steps=12, warmup=2, batch=8, objects=(3, 5))
DRAWN = dict(world="tokens", appearance="drawn", channels=192, codes=10)
SMALL_TOKENS = dict(world="tokens", symbols=5, codes=3, width=16, steps=12, warmup=2, batch=8)


# --- the conditions


class Planted(torch.nn.Module):
    """A "ViT" that computes nothing: tokens with their place, their pixels and, in some patches, a
    planted store or saliency."""

    enters = 0
    asked = "accuracy"
    query = None
    split = Net.split
    labels = Net.labels
    knows = Net.knows
    pixels = Net.pixels

    def __init__(self, where: str, registers: int = 0, times: float = 8.0, known: float = 0.0):
        """times: norm of a planted patch over the others'. known: how strongly all other patches
        hold the label too."""
        super().__init__()
        self.where, self.times, self.known = where, times, known
        self.regime = Regime(background="texture", plain=0.3, width=128, depth=1)
        self.registers = registers
        self.at = 0  # of the scenes, where the next forward pass begins
        self.scenes = draw(self.regime, 600, torch.Generator().manual_seed(1))
        torch.manual_seed(0)
        self.place = torch.randn(36, 64)
        self.content = torch.randn(48, 64) / 7
        self.what = torch.nn.functional.normalize(torch.randn(36, 64))

    def losses(self, scenes, mask, hidden):
        return None, {"accuracy": torch.tensor(0.5)}

    def forward(self, images):
        part = slice(self.at, self.at + len(images))
        self.at += len(images)
        label = self.scenes.label[part]
        redundant = self.scenes.redundant[part]
        patches = torch.nn.functional.unfold(images, 4, stride=4).transpose(1, 2)
        place = self.place.expand(len(images), -1, -1)
        local = torch.cat([place, patches @ self.content], 2)
        one = {
            "store": redundant,
            "saliency": self.scenes.kinds[part] >= 0,
            "none": torch.zeros_like(redundant),
        }[self.where]
        one = one & (one.cumsum(1) <= 2)  # two patches an image
        size = local.norm(dim=-1).median()
        told = torch.cat([self.what[label], torch.zeros(len(images), 64)], 1) * size
        told = told[:, None].expand_as(local)
        high = told + 0.2 * local if self.where == "store" else local
        x = torch.where(one[..., None], high * self.times, local + self.known * told)
        prefix = (told * self.times)[:, :1].expand(-1, 1 + self.registers, -1)
        return Seen(patches, patches, [torch.cat([prefix, x], 1)], None)

    def examine(self, folder):
        return examine(self, self.scenes, folder / "maps.npz")


@pytest.mark.parametrize("times, known", [(8.0, 0.0), (3.0, 0.0), (3.0, 0.2)])
def test_a_planted_store_meets_all_conditions(tmp_path, times, known):
    """Also one of three times the norm, and one whose label all other patches hold a little of."""
    result = Planted("store", times=times, known=known).examine(tmp_path)
    assert result["conditions"] == dict(
        second_mode=True, redundant=True, global_not_local=True, stored=True
    )
    assert result["numbers"]["redundant/outlier"] == 1
    assert result["numbers"]["class/outlier"] > 0.9
    with np.load(tmp_path / "maps.npz") as maps:
        assert maps["norms"].shape == (1, 8, 36)
        assert maps["all_norms"].shape == maps["all_redundant"].shape == (600, 36)


def test_saliency_is_no_store(tmp_path):
    """High norms on objects: a second mode that is not redundant; an object tells the label by
    what it shows, so it is not asked."""
    result = Planted("saliency").examine(tmp_path)
    assert result["conditions"] == dict(
        second_mode=True, redundant=False, global_not_local=None, stored=False
    )
    assert result["numbers"]["redundant/outlier"] == 0
    assert result["numbers"]["objects/outlier"] == 1


def test_a_store_without_a_norm_is_told_apart(tmp_path):
    result = Planted("store", times=1.0).examine(tmp_path)
    assert result["conditions"] == dict(
        second_mode=False, redundant=False, global_not_local=False, stored=True
    )


def test_without_outliers_no_condition_holds(tmp_path):
    result = Planted("none", registers=2).examine(tmp_path)
    assert not any(result["conditions"].values())
    assert result["numbers"]["class/reg1"] > 0.9
    assert "class/outlier" not in result["numbers"]


@pytest.mark.parametrize("summary, registers", [("cls", 2), ("late", 0), ("mean", 3)])
def test_no_other_token_sees_a_hidden_patch(summary, registers):
    torch.manual_seed(0)
    net = Net(Regime(**SMALL | dict(summary=summary, depth=3, gain=20.0)), registers).eval()
    images = torch.randn(2, 3, 16, 16)
    changed = images.clone()
    changed[:, :, :4, :4] += 1  # the first patch
    hide = torch.zeros(2, 16, dtype=torch.bool)
    hide[:, 0] = True

    def others(images, hidden=None):
        """The other patches after the first and the last block."""
        layers = net(images, None, hidden).layers
        return [net.split(layers[at], at).patches[:, 1:] for at in (0, 2)]

    with torch.no_grad():
        net.backbone.vit.blocks[0].attn.proj.weight.zero_()  # so that the first block tells nothing
        hidden = [others(x, hide) for x in (images, changed)]
        shown = [others(x) for x in (images, changed)]
    assert all(torch.equal(a, b) for a, b in zip(*hidden, strict=True))
    assert not torch.equal(shown[0][1], shown[1][1])


# --- runs


def sweep(registers: tuple[int, ...] = (0,), **change) -> Sweep:
    base = SMALL_TOKENS if change.get("world") == "tokens" else SMALL
    return Sweep(
        bases={"small": dict(base)},
        variants={
            "v": Variant(extends="small", hypothesis="H", predicts="", change=change),
        },
        hypotheses={"H": ""},
        registers=registers,
        headline="v",
        images=128,
        log_every=4,
        save_every=4,
    )


def history(folder: Path) -> str:
    return (folder / "history.csv").read_text()


def one(sweep: Sweep, folder: Path, registers: int = 0) -> dict:
    record = tracking.Run(folder / "results", "study", "v", {}, {})
    return run(sweep, "v", registers, 0, folder, CPU, record)


CHECKED = {"second_mode", "redundant", "global_not_local", "stored"}


@pytest.mark.parametrize("summary", ["cls", "late", "mean", "query"])
def test_every_way_to_read_the_label_trains_and_is_examined(tmp_path, summary):
    tiled = dict(background="tiled", texture_loss=0.5)
    settings = dict(summary=summary, masked=0.2, local_loss=0.5, **tiled)
    result = one(sweep(**settings), tmp_path, registers=2)
    assert result["status"] == "finished"
    assert set(result["conditions"]) == CHECKED
    assert ("class/cls" in result["numbers"]) == (summary in ("cls", "late"))
    assert "class/reg1" in result["numbers"]


TAUGHT = dict(world="tokens", objective="dinov2", masked=0.3, summary="cls")


DROPPED = dict(world="tokens", drop_path=0.5)


@pytest.mark.parametrize(
    "change",
    [{}, dict(world="tokens"), DROPPED, TAUGHT],
    ids=["scenes", "tokens", "dropped", "taught"],
)
def test_a_killed_run_resumes_to_the_same_numbers(tmp_path, monkeypatch, change):
    from registers.study import run as module

    settings = sweep(**change)
    one(settings, tmp_path / "whole")
    rate = module.rate

    def killed(regime, step):
        if step == 10:
            raise KeyboardInterrupt
        return rate(regime, step)

    monkeypatch.setattr(module, "rate", killed)
    with pytest.raises(KeyboardInterrupt):
        one(settings, tmp_path / "killed")
    monkeypatch.setattr(module, "rate", rate)
    one(settings, tmp_path / "killed")
    assert history(tmp_path / "whole") == history(tmp_path / "killed")
    states = [torch.load(tmp_path / name / "net.pt") for name in ("whole", "killed")]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_a_net_is_looked_at_and_examined_without_what_training_drops(tmp_path):
    dropped = sweep(**DROPPED)
    one(dropped, tmp_path / "v-r0-s0")
    first = json.loads((tmp_path / "v-r0-s0/run.json").read_text())
    again(dropped, tmp_path / "v-r0-s0", CPU)
    second = json.loads((tmp_path / "v-r0-s0/run.json").read_text())
    for told in ("signs", "numbers", "conditions", "notes"):
        assert first[told] == second[told]


def test_probes_are_asked_of_pictures_that_are_not_alike(tmp_path, monkeypatch):
    """A token that told its group of near duplicates would tell a label of the other half."""
    from registers.study import run as module

    shown = []

    def look(net, scenes, maps):
        shown.append((scenes.symbols.view(-1, 4, 25) == scenes.symbols[::4, None]).float().mean())
        return {"numbers": {}}

    monkeypatch.setattr(module, "examine", look)
    alike = sweep(**SMALL_TOKENS, alike=4)
    one(alike, tmp_path / "v-r0-s0")
    again(alike, tmp_path / "v-r0-s0", CPU)
    # one of four is compared with itself, the others agree by chance, 1 of 5 symbols
    assert shown == pytest.approx(2 * [(1 + 3 / 5) / 4], abs=0.05)


def test_a_failed_examination_costs_no_training(tmp_path, monkeypatch):
    from registers.study import run as module

    monkeypatch.setattr(module, "examine", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        one(sweep(), tmp_path)
    assert not (tmp_path / "run.json").exists()
    monkeypatch.undo()
    monkeypatch.setattr(module.Training, "update", lambda training: 1 / 0)
    assert one(sweep(), tmp_path)["status"] == "finished"


def test_a_run_ends_at_a_stop_file_and_a_diverged_one_is_written_down(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "stop").touch()
    result = one(sweep(), tmp_path / "a")
    assert (result["status"], result["steps"]) == ("stopped", 1)
    assert "conditions" in result
    diverging = sweep(lr=1e30, warmup=0, clip=0.0, steps=60)
    assert one(diverging, tmp_path / "b")["status"] == "diverged"
    assert json.loads((tmp_path / "b" / "run.json").read_text())["steps"] < 60


@pytest.mark.parametrize("regime", [Regime(**SMALL), TokenRegime(**SMALL_TOKENS)])
def test_every_step_sees_other_scenes(regime):
    sums = {scenes(regime, 1, step, CPU).images.sum().item() for step in range(50)}
    assert len(sums) == 50


# --- the sweep


def test_the_sweep_is_sound():
    sweep = read_sweep()
    names = sweep.names()
    assert len(names) == len(set(names))
    assert all(variant.predicts for variant in sweep.variants.values())
    assert set(sweep.ingredients) <= set(sweep.variants)
    assert sweep.headline_names()


def test_the_sweep_still_gives_every_finished_run_its_regime():
    sweep = read_sweep()
    finished = pd.read_csv(ROOT / "reports/emergence/results.csv", dtype=str)
    for row in finished.to_dict("records"):
        assert row["run"] in sweep.names()
        for name, value in sweep.regime(row["variant"]).model_dump(mode="json").items():
            told = row.get(f"regime.{name}")
            if isinstance(told, str):
                assert told.removesuffix(".0") == str(value).removesuffix(".0"), (row["run"], name)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"objects": (1, 4)}, r"variants.v.objects: \[1, 4\] is not allowed"),
        ({"heads": 3}, "heads: 3 is not allowed; must be a divisor of width 16"),
        ({"warmup": 9000}, "warmup"),
        ({"task": "sum", "shapes": 2}, "shapes: 2"),
        ({"plain_at": "corners", "objects": (4, 14)}, "at most 12"),
        ({"texture_loss": 1.0}, "tiled"),
        ({"masked": 1.0}, "masked: 1.0 is not allowed; must be below 1"),
        ({"world": "tokens", "masked": 0.5}, "between 0 and 1 for dinov2"),
        ({"world": "tokens", "blanks": 24}, "blanks: 24 is not allowed; must be at most 23"),
        ({"world": "tokens", "blanks": 5, "blanks_at": "area"}, "a rectangle"),
        ({"world": "tokens", "holders": 2, "keys": 2}, "holders: 2 is not allowed; must be 1"),
        ({"world": "tokens", "keys": 3}, "keys: 3 is not allowed; must be at most 2"),
        (
            {"world": "tokens", "appearance": "drawn", "channels": 192, "codes": 10, "alike": 2},
            "1 for",
        ),
        ({"world": "tokens", "attends_from": 3}, "below depth 3"),
        ({"world": "tokens", "positions_from": 3}, "positions_from: 3 is not allowed"),
        ({"world": "tokens", "label_from": 12}, "below its 12 steps"),
        ({"world": "tokens", "local_from": 12}, "below its 12 steps"),
        ({"world": "tokens", "appearance": "glyphs", "channels": 60}, "a square"),
        ({"world": "tokns"}, "world: 'tokns' is not allowed"),
        ({"widht": 3}, "widht"),
    ],
)
def test_a_regime_that_cannot_be_built_is_named(change, message):
    with pytest.raises(ConfigError, match=message):
        sweep(**change).regime("v")


def test_an_unknown_variant_or_parent_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="variant: 'w' is not allowed"):
        sweep().regime("w")
    lost = dict(extends="smal", hypothesis="H", predicts="")
    circle = dict(extends="v", hypothesis="H", predicts="")
    values = sweep().model_dump()
    for variant, message in ((lost, "did you mean small"), (circle, "does not extend this one")):
        with pytest.raises(ConfigError, match=message):
            build(Sweep, values | {"variants": {"v": variant}}).regime("v")


def test_worlds_are_files_beside_the_sweep(tmp_path):
    variant = "{extends: small, hypothesis: H, predicts: nothing}"
    head = {"bases": {"small": SMALL}, "hypotheses": {"H": "a statement"}, "worlds": ["a", "b"]}
    (tmp_path / "sweep.yaml").write_text(json.dumps(head))
    (tmp_path / "a.yaml").write_text(f"v: {variant}")
    with pytest.raises(ConfigError, match=r"b\.yaml: no such file"):
        read_sweep(tmp_path / "sweep.yaml")
    (tmp_path / "b.yaml").write_text(f"v: {variant}")
    with pytest.raises(
        ConfigError, match=r"b\.v: 'v' is not allowed; must be a name that no other"
    ):
        read_sweep(tmp_path / "sweep.yaml")
    (tmp_path / "b.yaml").write_text(f"w: {variant}")
    assert read_sweep(tmp_path / "sweep.yaml").names() == ["v-r0-s0", "w-r0-s0"]


def test_a_variant_changes_only_what_it_names():
    values = sweep(width=32).model_dump()
    values["variants"]["child"] = values["variants"]["v"] | dict(extends="v", change={"depth": 3})
    regime = build(Sweep, values).regime("child")
    assert regime == regime_of(SMALL | {"width": 32, "depth": 3}, "")


def test_reading_the_sweep_needs_no_torch():
    code = "import sys; from registers.study.sweep import read_sweep; read_sweep()"
    check = f"{code}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0
