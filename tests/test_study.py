"""The emergence study: scenes carry the truths they claim, the four conditions find a planted effect and nothing else, runs resume."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from registers import tracking
from registers.settings.errors import ConfigError
from registers.settings.load import read_yaml
from registers.study.examine import examine
from registers.study.net import Net, local_targets
from registers.study.regime import Regime, Study, Variant, check, study
from registers.study.run import run, scenes
from registers.study.scenes import corners, draw

SWEEP = Path(__file__).parents[1] / "workflow" / "scales" / "emergence.yaml"
SMALL = Regime(grid=4, width=16, depth=2, steps=12, warmup=2, batch=8, objects=(3, 5))


def some(regime: Regime, count: int = 64):
    return draw(regime, count, torch.Generator().manual_seed(3))


# --- scenes -------------------------------------------------------------------------------------------------------------


def test_a_pair_is_the_only_kind_that_appears_twice():
    seen = some(Regime(objects=(4, 12)))
    for kinds, label in zip(seen.kinds, seen.label):
        found, counts = kinds[kinds >= 0].unique(return_counts=True)
        assert found[counts == 2].tolist() == [label] and counts.max() == 2


def test_the_sum_is_that_of_the_two_marked_objects():
    regime = Regime(task="sum")
    seen = some(regime)
    for kinds, label in zip(seen.kinds, seen.label):
        first = kinds[(kinds >= 0) & (kinds < regime.colours)]
        second = kinds[(kinds >= regime.colours) & (kinds < 2 * regime.colours)]
        assert (
            len(first) == len(second) == 1
            and (first + second - regime.colours).item() % regime.colours == label
        )


def test_presence_and_latent_labels_follow_from_the_objects():
    seen = some(Regime(task="presence"))
    for kinds, present in zip(seen.kinds, seen.present):
        assert set(present.nonzero().flatten().tolist()) == set(kinds[kinds >= 0].tolist())
    seen, sets = some(Regime(task="latent", latents=8, objects=(12, 12)), 400), {}
    for kinds, label in zip(seen.kinds, seen.label.tolist()):
        sets.setdefault(label, set()).update(kinds[kinds >= 0].tolist())
    assert len(sets) == 8 and all(len(kinds) == 4 for kinds in sets.values())


@pytest.mark.parametrize("background", ["flat", "gradient", "tiled", "texture"])
def test_redundant_patches_look_like_each_other_and_others_do_not(background):
    regime = Regime(background=background, plain=0.4, tile=0.5)
    seen = some(regime, 8)
    patches = torch.nn.functional.unfold(seen.images, regime.patch, stride=regime.patch).transpose(
        1, 2
    )
    for image, redundant, contents in zip(patches, seen.redundant, seen.contents):
        near = (
            torch.cdist(image, image).fill_diagonal_(9).min(1).values
        )  # the most similar other patch
        alone = torch.tensor([(contents == c).sum() == 1 for c in contents])
        assert (redundant == (contents < 0)).all() and redundant.any() and alone.any()
        assert near[redundant].max() < near[alone].min()


def test_noise_is_not_redundant():
    seen = some(Regime(background="noise"))
    assert not seen.redundant.any() and (seen.contents < 0).any()


def test_corners_are_plain_and_never_hold_an_object():
    seen = some(Regime(background="texture", plain_at="corners", objects=(20, 30)))
    assert seen.redundant[:, corners(6)].all() and seen.redundant.sum(1).max() == 4


def test_triggers_ask_for_the_label_or_the_left_neighbour():
    regime = Regime(background="texture", triggers=16, asks="label")
    seen = some(regime)
    asked, triggered = local_targets(seen, regime)
    assert (
        triggered.any()
        and (asked[triggered] == seen.label[:, None].expand_as(asked)[triggered]).all()
    )
    asked, triggered = local_targets(seen, regime.model_copy(update=dict(asks="left")))
    image, cell = (x[0].item() for x in triggered[:, 1:6].nonzero(as_tuple=True))
    assert asked[image, cell + 1] == seen.contents[image, cell]
    assert (asked[~triggered] == seen.contents[~triggered]).all()


# --- the conditions -----------------------------------------------------------------------------------------------------


class Planted(torch.nn.Module):
    """A "ViT" that computes nothing: tokens with their place, their pixels and, in some patches, a planted store or saliency."""

    def __init__(self, where: str, registers: int = 0, times: float = 8.0, known: float = 0.0):
        """times: norm of a planted patch over the others'. known: how strongly all other patches hold the label too."""
        super().__init__()
        self.times, self.known = times, known
        self.regime = Regime(background="texture", plain=0.3, width=128, depth=1)
        self.registers, self.where = registers, where
        torch.manual_seed(0)
        self.place, self.pixels = torch.randn(36, 64), torch.randn(48, 64) / 7
        self.what = torch.nn.functional.normalize(torch.randn(36, 64))

    def split(self, x, layer):
        return Net.split(self, x, layer)

    enters = 0

    def losses(self, scenes, mask, hidden):
        return None, {"accuracy": torch.tensor(0.5)}

    def forward(self, images):
        from registers.study.net import Seen

        seen = self.scenes
        start = self.at
        part = slice(start, start + len(images))
        self.at += len(images)
        label, redundant, kinds = seen.label[part], seen.redundant[part], seen.kinds[part]
        patches = torch.nn.functional.unfold(images, 4, stride=4).transpose(1, 2)
        local = torch.cat([self.place.expand(len(images), -1, -1), patches @ self.pixels], 2)
        one = {"store": redundant, "saliency": kinds >= 0, "none": torch.zeros_like(redundant)}[
            self.where
        ]
        one = one & (one.cumsum(1) <= 2)  # two patches an image
        size = local.norm(dim=-1).median()
        what = (
            torch.cat([self.what[label], torch.zeros(len(images), 64)], 1)[:, None].expand_as(local)
            * size
        )
        high = what + 0.2 * local if self.where == "store" else local
        stored = what * self.times
        x = torch.where(one[..., None], high * self.times, local + self.known * what)
        prefix = stored[:, :1].expand(-1, 1 + self.registers, -1)
        return Seen(patches, [torch.cat([prefix, x], 1)], None)

    def examine(self, folder):
        self.scenes, self.at = draw(self.regime, 600, torch.Generator().manual_seed(1)), 0
        return examine(self, self.scenes, folder / "maps.npz")


@pytest.mark.parametrize("times, known", [(8.0, 0.0), (3.0, 0.0), (3.0, 0.2)])
def test_a_planted_store_meets_all_conditions(tmp_path, times, known):
    """Also one of three times the norm, and one whose label all other patches hold a little of."""
    found = Planted("store", times=times, known=known).examine(tmp_path)
    assert found["conditions"] == {
        "second_mode": True,
        "redundant": True,
        "global_not_local": True,
        "stored": True,
    }
    assert found["numbers"]["redundant/outlier"] == 1 and found["numbers"]["class/outlier"] > 0.9
    assert (np.load(tmp_path / "maps.npz")["norms"].shape) == (1, 8, 36)


def test_saliency_is_no_store(tmp_path):
    """High norms on objects: a second mode that is not redundant; an object tells the label by what it shows, so it is not asked."""
    found = Planted("saliency").examine(tmp_path)
    assert found["conditions"] == {
        "second_mode": True,
        "redundant": False,
        "global_not_local": None,
        "stored": False,
    }
    assert found["numbers"]["redundant/outlier"] == 0 and found["numbers"]["objects/outlier"] == 1


def test_a_store_without_a_norm_is_seen_as_such(tmp_path):
    found = Planted("store", times=1.0).examine(tmp_path)
    assert found["conditions"] == {
        "second_mode": False,
        "redundant": False,
        "global_not_local": False,
        "stored": True,
    }


def test_without_outliers_no_condition_holds(tmp_path):
    found = Planted("none", registers=2).examine(tmp_path)
    assert not any(found["conditions"].values())
    assert found["numbers"]["class/reg1"] > 0.9 and "class/outlier" not in found["numbers"]


@pytest.mark.parametrize("summary, registers", [("cls", 2), ("late", 0), ("mean", 3)])
def test_a_hidden_patch_is_seen_by_no_other_token(summary, registers):
    torch.manual_seed(0)
    net = Net(SMALL.model_copy(update=dict(summary=summary, depth=3, gain=20.0)), registers).eval()
    images = torch.randn(2, 3, 16, 16)
    changed = images.clone()
    changed[:, :, :4, :4] += 1  # the first patch
    hide = torch.zeros(2, 16, dtype=torch.bool)
    hide[:, 0] = True

    def after_first_block(
        images,
    ):  # what the patch has already told in the first block must not count: it is hidden from the second on
        seen = net(images, None, hide)
        return net.split(seen.layers[-1], 2).patches[:, 1:], net.split(seen.layers[0], 0).patches[
            :, 1:
        ]

    with torch.no_grad():
        net.backbone.vit.blocks[0].attn.proj.weight.zero_()  # so that the first block tells nothing
        (last, first), (other, other_first) = after_first_block(images), after_first_block(changed)
        assert torch.equal(first, other_first) and torch.equal(last, other)
        assert not torch.equal(
            net.split(net(images).layers[-1], 2).patches[:, 1:],
            net.split(net(changed).layers[-1], 2).patches[:, 1:],
        )


# --- runs ---------------------------------------------------------------------------------------------------------------


def sweep(**change) -> Study:
    return Study(
        base=SMALL,
        variants={"v": Variant(hypothesis="H", change=change)},
        hypotheses={"H": ""},
        images=128,
        log_every=4,
        save_every=4,
    )


def history(folder: Path) -> str:
    return (folder / "history.csv").read_text()


def one(found: Study, folder: Path, registers: int = 0) -> dict:
    record = tracking.Run(folder / "results", "study", "v", {}, {})
    return run(found, "v", registers, 0, folder, torch.device("cpu"), record)


@pytest.mark.parametrize("summary", ["cls", "late", "mean", "query"])
def test_every_way_to_read_the_label_trains_and_is_examined(tmp_path, summary):
    result = one(
        sweep(summary=summary, masked=0.2, local_loss=0.5, background="tiled", texture_loss=0.5),
        tmp_path,
        registers=2,
    )
    assert result["status"] == "finished" and set(result["conditions"]) == {
        "second_mode",
        "redundant",
        "global_not_local",
        "stored",
    }
    assert ("class/cls" in result["numbers"]) == (
        summary in ("cls", "late")
    ) and "class/reg1" in result["numbers"]


def test_a_killed_run_resumes_to_the_same_numbers(tmp_path, monkeypatch):
    one(sweep(), tmp_path / "whole")
    from registers.study import run as module

    step = module.rate

    def killed(regime, at):
        if at == 10:
            raise KeyboardInterrupt
        return step(regime, at)

    monkeypatch.setattr(module, "rate", killed)
    with pytest.raises(KeyboardInterrupt):
        one(sweep(), tmp_path / "killed")
    monkeypatch.setattr(module, "rate", step)
    one(sweep(), tmp_path / "killed")
    assert history(tmp_path / "whole") == history(tmp_path / "killed")
    states = [torch.load(tmp_path / name / "net.pt") for name in ("whole", "killed")]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_a_run_ends_at_a_stop_file_and_a_diverged_one_is_written_down(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "stop").touch()
    result = one(sweep(), tmp_path / "a")
    assert result["status"] == "stopped" and result["steps"] == 1 and "conditions" in result
    result = one(sweep(lr=1e30, warmup=0, clip=0.0, steps=60), tmp_path / "b")
    assert (
        result["status"] == "diverged"
        and json.loads((tmp_path / "b" / "run.json").read_text())["steps"] < 60
    )


def test_training_never_sees_the_scenes_of_the_examination():
    trained = {
        scenes(SMALL, 1, step, torch.device("cpu")).images.sum().item() for step in range(50)
    }
    assert len(trained) == 50


# --- the sweep ----------------------------------------------------------------------------------------------------------


def test_the_sweep_is_sound():
    found = study(read_yaml(SWEEP)["study"])
    names = [f"{v}-r{r}-s{s}" for v, r, s in found.runs()]
    assert len(names) == len(set(names)) and all(v.predicts for v in found.variants.values())


@pytest.mark.parametrize(
    "change, says",
    [
        ({"objects": (1, 4)}, "objects"),
        ({"heads": 3}, "heads = 3"),
        ({"warmup": 9000}, "warmup"),
        ({"task": "sum", "shapes": 2}, "shapes = 2"),
        ({"plain_at": "corners", "objects": (4, 34)}, "at most 32"),
        ({"texture_loss": 1.0}, "tiled"),
    ],
)
def test_a_regime_that_cannot_be_built_is_named(change, says):
    with pytest.raises(ConfigError, match=says):
        check(Regime().model_copy(update=change))


def test_an_unknown_variant_or_change_is_one_line():
    with pytest.raises(ConfigError, match="allowed are v"):
        sweep().regime("w")
    with pytest.raises(ConfigError, match="widht"):
        sweep(widht=3).regime("v")


# --- the summary --------------------------------------------------------------------------------------------------------


def planted_run(folder: Path, registers: int, seed: int = 0, **numbers) -> None:
    """A run's files as `run` writes them, with numbers of our choice."""
    few = sweep(steps=4).model_copy(update=dict(log_every=2))
    one(few, folder / f"v-r{registers}-s{seed}", registers)
    file = folder / f"v-r{registers}-s{seed}" / "run.json"
    content = json.loads(file.read_text()) | {"seed": seed}
    content["numbers"] |= numbers
    content["intervals"] |= {k: [v - 0.01, v + 0.01] for k, v in numbers.items()}
    content["conditions"] = {
        "second_mode": not registers,
        "redundant": not registers,
        "global_not_local": not registers,
        "stored": False,
    }
    file.write_text(json.dumps(content))


def test_the_summary_lists_every_run_and_claims_only_what_all_conditions_and_seeds_carry(tmp_path):
    from registers.study.summary import load, write

    runs, found = tmp_path / "runs", sweep(steps=4).model_copy(update=dict(shown=("v",)))
    for seed in (0, 1):
        planted_run(runs, 0, seed)
        planted_run(runs, 2, seed, **{"class/reg0": 0.9, "class/reg1": 0.1, "class/normal": 0.5})
    planted_run(runs, 0, 2)
    planted_run(
        runs, 2, 2, **{"class/reg0": 0.2, "class/reg1": 0.1, "class/normal": 0.5}
    )  # these registers hold nothing
    frame = load(runs, found).set_index("run")
    assert frame.registers_take_over[["v-r2-s0", "v-r2-s1", "v-r2-s2"]].tolist() == [
        True,
        True,
        False,
    ]
    assert frame.registers_take_over["v-r0-s0"] is None
    write(found, runs, tmp_path)
    page = (tmp_path / "emergence.md").read_text()
    assert "**The whole effect was not found.**" in page and all(
        name in page for name in frame.index
    )
    planted_run(runs, 2, 2, **{"class/reg0": 0.9, "class/reg1": 0.1, "class/normal": 0.5})
    write(found, runs, tmp_path)
    assert "**Found:** v meets all four conditions" in (tmp_path / "emergence.md").read_text()
    assert {p.name for p in (tmp_path / "emergence").glob("*.png")} == {
        "landscape.png",
        "course.png",
        "maps.png",
    }


def test_the_recipes_rows_come_from_their_own_measurements(tmp_path):
    from registers.measurements import Measurement, write
    from registers.study.summary import recipes

    rows = [("second_mode", 0.0), ("max_over_median", 1.5), ("kurtosis", 4.0)]
    note = {"second_mode": "no second mode: it falls"}
    measured = [
        Measurement("outliers", m, "dinov2-r0-s0", v, note=note.get(m, "")) for m, v in rows
    ]
    write(tmp_path / "measurements/norms/dinov2-r0-s0.csv", measured)
    (tmp_path / "checkpoints/dinov2-r0-s0").mkdir(parents=True)
    (tmp_path / "checkpoints/dinov2-r0-s0/last.json").write_text('{"step": 77}')
    (row,) = recipes(tmp_path)
    assert (row["steps"], row["ratio"], row["second_mode"], row["why"]) == (
        77,
        1.5,
        False,
        "no second mode: it falls",
    )
