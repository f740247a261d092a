"""The page of the study claims no more than its rows carry, and a clone without runs keeps them."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from registers import tracking
from registers.measurements import Measurement
from registers.measurements import write as write_rows
from registers.settings.errors import ConfigError
from registers.study import figures
from registers.study.__main__ import sentence
from registers.study.results import load
from registers.study.run import run
from registers.study.seeds import Seeds, placed
from registers.study.summary import (
    PAGES,
    SCALES,
    TEMPLATES,
    cost,
    draw_headline,
    recipes,
    rooms,
    write,
    write_csv,
)
from registers.study.sweep import read_sweep
from registers.study.verify import verify
from registers.study.worlds import OBJECTIVES

HELD = dict(second_mode=True, redundant=True, global_not_local=True, stored=True)
GONE = dict.fromkeys(HELD, False)
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[int, Path]:
    """Two very short runs of the headline's regime, by their number of registers."""
    sweep = short()
    folder = tmp_path_factory.mktemp("trained")
    for registers in (0, 4):
        out = folder / str(registers)
        record = tracking.Run(folder / "results", "study", "v", {}, {})
        run(sweep, sweep.headline, registers, 0, out, torch.device("cpu"), record)
    return {registers: folder / str(registers) for registers in (0, 4)}


def short():
    """The sweep, with a headline of two steps."""
    sweep = read_sweep()
    variants = dict(sweep.variants)
    for name, changed in (
        (sweep.headline, {"steps": 2, "warmup": 1}),
        (sweep.withdrawal, {"local_from": 1}),  # it extends the headline
    ):
        change = variants[name].change | changed
        variants[name] = variants[name].model_copy(update={"change": change})
    return sweep.model_copy(update={"variants": variants, "images": 128})


def plant(trained: dict[int, Path], runs: Path, registers: int, seed: int, **numbers) -> None:
    """A run's files as `run` writes them, with numbers of our choice."""
    folder = runs / f"{read_sweep().headline}-r{registers}-s{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    for file in trained[registers].iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    content = json.loads((folder / "run.json").read_text()) | {"seed": seed}
    content["numbers"] |= numbers
    content["intervals"] |= {k: [v - 0.01, v + 0.01] for k, v in numbers.items()}
    content["conditions"] = GONE if registers else HELD
    (folder / "run.json").write_text(json.dumps(content))


TAKEN = {"class/reg0": 0.9, "class/reg1": 0.1, "class/normal": 0.5}
NOT_TAKEN = TAKEN | {f"class/reg{r}": 0.2 for r in range(4)}


def committed(out: Path) -> None:
    """The rows and recipes that a clone has, without those of the headline."""
    (out / "emergence").mkdir(parents=True)
    rows = pd.read_csv(ROOT / "reports/emergence/results.csv", low_memory=False)
    rows = rows[rows.variant != read_sweep().headline]
    rows.to_csv(out / "emergence/results.csv", index=False)
    recipes = (ROOT / "reports/emergence/recipes.csv").read_text()
    (out / "emergence/recipes.csv").write_text(recipes)


def test_the_page_claims_only_what_all_conditions_and_three_seeds_carry(trained, tmp_path):
    runs = tmp_path / "runs"
    out = tmp_path / "out"
    committed(out)
    sweep = short()
    seeds = sweep.variants[sweep.headline].seeds[:3]
    for seed in seeds:
        plant(trained, runs, 0, seed)
        plant(trained, runs, 4, seed, **(TAKEN if seed < seeds[2] else NOT_TAKEN))
    rows = load(runs, sweep).set_index("run")
    names = [f"{sweep.headline}-r4-s{seed}" for seed in seeds]
    assert rows.registers_take_over[names].tolist() == [True, True, False]
    assert rows.registers_take_over[f"{sweep.headline}-r0-s{seeds[0]}"] is None
    write(sweep, runs, out)
    page = " ".join((out / "emergence.md").read_text().split())
    assert "fewer than the 3 that a claim needs" in page
    assert "The whole effect was found, " not in page
    assert all(name in page for name in names)
    plant(trained, runs, 4, seeds[2], **TAKEN)
    write(sweep, runs, out)
    assert "The whole effect was found, " in (out / "emergence.md").read_text()
    draw_headline(sweep, runs, out / "emergence")
    figures = {file.name for file in (out / "emergence").glob("*.png")}
    drawn = {"headline", "ingredients", "kinds", "landscape", "places"}
    assert figures == {f"{name}.png" for name in drawn}


def test_rows_of_runs_that_are_not_at_hand_are_kept(trained, tmp_path):
    runs = tmp_path / "runs"
    out = tmp_path / "out"
    committed(out)
    before = (out / "emergence/results.csv").read_text().splitlines()
    plant(trained, runs, 0, 0)
    write(short(), runs, out)
    after = pd.read_csv(out / "emergence/results.csv")
    assert len(after) == len(before)  # one row more, and the header
    first = (out / "emergence/results.csv").read_text()
    page = (out / "emergence.md").read_text()
    write(short(), tmp_path / "none", out)  # a clone
    assert (out / "emergence/results.csv").read_text() == first
    assert (out / "emergence.md").read_text() == page


def test_registers_take_over_from_a_run_that_is_not_at_hand(trained, tmp_path):
    runs, table = tmp_path / "runs", tmp_path / "results.csv"
    sweep = short()
    names = [f"{sweep.headline}-r{registers}-s0" for registers in (0, 4)]
    plant(trained, runs, 0, 0)
    plant(trained, runs, 4, 0, **TAKEN)
    rows = load(runs, sweep)
    assert rows.set_index("run").registers_take_over[names].tolist() == [None, True]
    # the first row as of an earlier day, without a setting that has come since
    write_csv(rows.query("registers == 0").drop(columns="regime.biases"), table)
    shutil.rmtree(runs / names[0])
    again = load(runs, sweep, table).set_index("run")
    assert again.registers_take_over[names].tolist() == [None, True]
    assert again["regime.biases"][names].tolist() == ["False", "False"]


def test_a_row_can_be_held_against_a_new_training(trained, tmp_path):
    sweep = short()
    name = f"{sweep.headline}-r4-s0"
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / name).symlink_to(trained[4])
    rows = tmp_path / "results.csv"
    write_csv(load(tmp_path / "runs", sweep), rows)
    device = torch.device("cpu")
    told = verify(sweep, name, (sweep.headline, 4, 0), rows, device)
    assert told.compared > 80 and not told.differing and not told.new
    assert sentence(told).startswith("conditions the same; ") and "median" not in sentence(told)
    changed = pd.read_csv(rows, low_memory=False)
    norm, changed["redundant_over_others"] = changed.redundant_over_others[0], 7.25
    changed["second_mode"] = True
    changed["answers/own"] = None  # as in a row that is older than this column
    write_csv(changed, rows)
    told = verify(sweep, name, (sweep.headline, 4, 0), rows, device)
    expected = {"redundant_over_others": ("7.25", f"{norm:g}"), "second_mode": ("True", "False")}
    assert told.differing == expected and told.new == ["answers/own"]
    assert told.overturned == ["second_mode"]
    assert told.typical == pytest.approx((7.25 - norm) / 7.25)
    words = sentence(told)
    assert words.startswith("conditions OVERTURNED: second_mode; ") and "last digit" in words
    with pytest.raises(ConfigError, match="must be a run of"):
        verify(sweep, "vit-r4-s99", (sweep.headline, 4, 99), rows, device)


def test_the_committed_page_is_that_of_the_committed_rows(tmp_path):
    out = tmp_path / "out"
    (out / "emergence").mkdir(parents=True)
    for name in ("results.csv", "recipes.csv"):
        text = (ROOT / "reports/emergence" / name).read_text()
        (out / "emergence" / name).write_text(text)
    write(read_sweep(), tmp_path / "none", out)
    for name in (*PAGES.values(), "emergence/results.csv"):
        assert (out / name).read_text() == (ROOT / "reports" / name).read_text()


def test_every_question_has_a_page():
    assert {f"{name}.md.j2" for name in (*PAGES, "parts")} == {p.name for p in TEMPLATES.iterdir()}


def test_the_recipes_rows_come_from_their_own_measurements(tmp_path):
    rows = [("second_mode", 0.0), ("max_over_median", 1.5), ("kurtosis", 4.0)]
    note = {"second_mode": "no second mode: it falls"}
    name = "dinov2-r0-s0"
    measured = [Measurement("norms", m, name, v, note=note.get(m, "")) for m, v in rows]
    committed = tmp_path / "recipes.csv"
    other = "scale,backbone,steps,ratio,kurtosis,second_mode,why,learned"
    committed.write_text(f"{other}\n{SCALES[0]},x,1,1,1,True,-,\n{SCALES[1]},y,1,1,1,True,-,0.5\n")
    results = tmp_path / SCALES[0]
    write_rows(results / f"measurements/norms/{name}.csv", measured)
    (results / f"checkpoints/{name}").mkdir(parents=True)
    (results / f"checkpoints/{name}/last.json").write_text('{"step": 77}')
    kept, row = recipes(tmp_path, committed)
    assert (kept["scale"], kept["backbone"]) == (SCALES[1], "y")  # not measured here
    assert kept["learned"] == 0.5
    assert (row["steps"], row["ratio"], row["second_mode"]) == (77, 1.5, False)
    assert row["why"] == "no second mode: it falls" and row["learned"] is None
    probe = Measurement("linear", "top1_held_out", name, 0.7)
    write_rows(results / f"measurements/linear/{name}.csv", [probe])
    row = recipes(tmp_path, committed)[1]
    assert row["learned"] == 0.7
    assert recipes(tmp_path / "none", committed) == [kept, row]


def test_the_map_of_room_holds_what_differs_in_nothing_but_units_and_symbols():
    names = ["area-short", "hidden-12", "symbols-16-hidden-24", "sgd", "registers"]
    frame = pd.DataFrame(dict(variant=names, registers=[0, 0, 0, 0, 4]))
    expected = {(6, 48): "area-short", (12, 48): "hidden-12", (24, 16): "symbols-16-hidden-24"}
    assert rooms(read_sweep(), frame) == expected


def test_the_cost_of_the_headline_is_the_sum_of_its_runs_or_an_estimate_from_others():
    timed = pd.DataFrame(dict(core_seconds=[60.0, 90.0], steps=[3000, 3000]))
    assert cost(timed, timed) == dict(core_minutes=2.5, cost_measured=True, timed=2)
    untimed = timed.assign(core_seconds=float("nan"))
    estimate = cost(untimed, pd.concat([untimed, timed[:1]]))
    assert estimate == dict(core_minutes=pytest.approx(2.0), cost_measured=False, timed=1)
    assert cost(untimed, untimed)["core_minutes"] is None


def test_the_readme_says_in_how_many_seeds_the_effect_is_whole():
    rows = pd.read_csv(ROOT / "reports/emergence/results.csv", low_memory=False)
    rows = rows[rows.variant == read_sweep().headline]
    readme = " ".join((ROOT / "README.md").read_text().split())
    told = {
        0: "Without registers, in {} seeds,",
        4: "With four registers, in {} seeds, there are no outliers",
    }
    needed = {0: ["second_mode", "redundant", "global_not_local"], 4: ["registers_take_over"]}
    for registers, words in told.items():
        mine = rows[rows.registers == registers]
        held = mine[needed[registers]].astype(str).eq("True").all(axis=1)
        assert words.format(f"{held.sum()} of {len(held)}") in readme
    without = rows[rows.registers == 0]
    assert without.redundant_over_others.between(2, 3).all()  # "two to three times the norm"
    assert without.embedding_over_others.between(0.8, 1.2).all()  # "embeddings are no larger"
    assert (without["class/outlier"] > 0.9).all()
    assert (without.pool_on_redundant > 0.9).all()
    assert (rows[rows.registers == 4].pool_on_registers > 0.9).all()


def test_the_readme_says_in_how_many_seeds_registers_have_a_price():
    rows = pd.read_csv(ROOT / "reports/emergence/results.csv", low_memory=False)
    seen = rows[(rows.variant == read_sweep().lookup[0]) & (rows.registers == 16)]
    readme = " ".join((ROOT / "README.md").read_text().split())
    stuck = (seen["answers/right"] < 0.2).sum()
    told = f"do not learn their neighbour's glyph in {stuck} of {len(seen)} seeds"
    assert told in readme and "with 16 of them, and narrow MLPs" in readme
    assert (seen["regime.hidden"].astype(float) < 48).all()  # "narrow": below the ViT's width


def test_the_readme_says_in_how_many_seeds_stochastic_depth_brings_the_norm():
    rows = pd.read_csv(ROOT / "reports/emergence/results.csv", low_memory=False)
    rows = rows[rows.registers == 0]
    wide = rows[rows.variant.isin(["vit-wide", "vit-deep-wide", "vit-ordinary-no-drop"])]
    dropped = rows[rows.variant == "vit-ordinary"]
    held = dropped[["second_mode", "redundant", "global_not_local"]].astype(str).eq("True").all(1)
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"stochastic depth (in {held.sum()} of {len(held)} seeds)" in readme
    assert (wide["class/redundant"] > 0.9).all()  # "the wall patches still hold the label"
    assert not wide.second_mode.astype(str).eq("True").any()  # "form no second mode"


def test_the_readme_says_in_how_many_seeds_openclips_loss_leaves_a_constant():
    rows = pd.read_csv(ROOT / "reports/emergence/results.csv", low_memory=False)
    every = rows[rows.variant == read_sweep().openclip]
    without, beside = every[every.registers == 0], every[every.registers == 4]
    second = without.second_mode.astype(str).eq("True")
    readme = " ".join((ROOT / "README.md").read_text().split())
    kind = "leaves high norms [of another kind](reports/emergence/constants.md)"
    assert f"{kind} (in {second.sum()} of {len(second)} seeds)" in readme
    assert (every.redundant_constant > 0.8).all()  # "mostly a constant"
    # "tells the label no better than other patches do"
    assert (every["class/redundant"] < every["class/other"] + 0.1).all()
    left = beside.second_mode.astype(str).eq("True")
    assert f"with four registers they remain in {left.sum()} of {len(left)}." in readme


def test_the_readme_says_in_how_many_seeds_outliers_come_beside_cls():
    rows = load(ROOT / "none", read_sweep(), ROOT / "reports/emergence/results.csv")
    held = rows[["second_mode", "redundant", "global_not_local"]].eq(True).all(axis=1)
    rows = rows.copy().assign(found=held)

    def labels(name: str, registers: int = 0) -> pd.DataFrame:
        return rows[(rows.variant == f"vit-cls-{name}") & (rows.registers == registers)]

    readme = " ".join((ROOT / "README.md").read_text().split())
    four, again = labels("four"), labels("four-again")
    told = f"become outliers in {four.found.sum()} of {len(four)} seeds"
    assert f"{told}, and in {again.found.sum()} of {len(again)} new ones." in readme
    others = [labels(name) for name in ("long", "two", "six", "six-again", "eight")]
    assert all(some.found.mean() < four.found.mean() / 2 for some in others)  # "fewer"

    # --- where there are outliers
    found = pd.concat([four, again]).query("found")
    assert found["exchanged/labels"].between(1, 2).all()  # "one or two of the labels"
    assert (found["hidden/redundant"] < 0.8).all() and (found["hidden/other"] > 0.95).all()
    # of the labels that it no longer tells, it tells the other picture's: "as that picture's"
    assert ((found["exchanged/own"] + found["exchanged/donor"]) > 1 / 32 + 0.98).all()
    assert (found["exchanged/donor"] > 0.25).all()
    assert (found.cls_on_redundant > 0.5).all()  # "In the last block it looks at the wall"

    # --- the same seeds with registers
    beside = pd.concat([labels("four", 4), labels("four-again", 4)])
    beside = beside[beside.seed.isin(found.seed)]
    taken = beside.registers_take_over.eq(True).sum()
    assert f"registers, which take over in {taken} of these {len(found)} seeds" in readme
    assert len(beside) == len(found)
    assert (beside.cls_on_registers > 0.8).all()  # "it looks at the registers"


def test_the_readme_says_where_labels_wait_when_the_wall_becomes_outliers():
    rows = load(ROOT / "none", read_sweep(), ROOT / "reports/emergence/results.csv")
    narrow = placed(rows[rows["regime.world"] == "tokens"]).query("not wide")
    alone = narrow.place == "wall"
    assert narrow.second_mode.fillna(False).astype(bool).equals(alone)
    readme = " ".join((ROOT / "README.md").read_text().split())
    told = f"in all {alone.sum()} runs in which they wait in the wall alone"
    assert f"{told}, and in none of the {(~alone).sum()} others" in readme
    assert narrow.predicted.sum() == 10 and f"for ten of these {len(narrow)} runs" in readme


def test_seeds_without_a_sign_do_not_count_as_seeds_without_the_copy():
    right = [0.94, 0.96, 1.0, float("nan")]
    frame = pd.DataFrame({"variant": "v", "registers": 4, "seed": range(4), "answers/right": right})
    seeds = Seeds(frame)
    assert seeds.copied("v", 4) == "2 of 3"
    assert seeds.each("v", 4, "answers/right") == "0.94, 0.96, 1.00, -"


def test_the_figure_of_the_table_draws_what_is_there(tmp_path):
    (tmp_path / "seen-r2-s0").mkdir()
    history = pd.DataFrame({"step": [0, 100], "layer1/head_on_registers": [0.1, 0.4]})
    history.to_csv(tmp_path / "seen-r2-s0/history.csv", index=False)
    rows = [("seen", 2, 0.1, 0.2), ("unseen", 2, 1.0, None), ("unseen", 1, 0.9, None)]
    frame = pd.DataFrame(rows, columns=["variant", "registers", "right", "own_levelled"])
    frame = frame.rename(columns={n: f"answers/{n}" for n in ("right", "own_levelled")})
    frame = frame.assign(seed=0, run=[f"{v}-r{r}-s0" for v, r, *_ in rows])
    panels = figures.lookup(tmp_path, frame, "seen", "unseen").axes
    heights = [sorted(y for c in ax.collections for y in c.get_offsets()[:, 1]) for ax in panels]
    assert heights == [[0.1, 0.9, 1.0], [0.2], []]
    assert [label.get_text() for label in panels[0].get_xticklabels()] == ["1", "2"]
    assert panels[2].lines[0].get_ydata().tolist() == [0.1, 0.4]


def test_the_figure_of_two_kinds_draws_every_run_that_tells_what_blanks_are_made_of():
    columns = ["regime.objective", "regime.triggers", "registers", "second_mode"]
    rows = [
        ("tasks", "0.0", 0, True, 0.1, 2.3),
        ("tasks", "0.0", 4, False, 0.3, 0.9),
        ("tasks", "0.3", 0, True, 0.9, 3.1),
        ("openclip", "0.0", 0, None, 0.95, 2.9),
        ("openclip", "0.0", 0, True, None, 1.0),
        *((name, "0.0", 0, False, 0.5, 1.0) for name in ("captions", "deit3", "dinov2", "ibot")),
    ]
    frame = pd.DataFrame(rows, columns=[*columns, "redundant_constant", "redundant_over_others"])
    assert set(figures.LOSSES) == {"copies", *OBJECTIVES}
    figure = figures.kinds(frame)
    points = [tuple(p) for c in figure.axes[0].collections for p in c.get_offsets().data]
    others = [(0.5, 1.0)] * 4
    assert sorted(points) == [(0.1, 2.3), (0.3, 0.9), *others, (0.9, 3.1), (0.95, 2.9)]
    filled = [
        len(c.get_facecolors()) and c.get_facecolors()[0][3] for c in figure.axes[0].collections
    ]
    assert sorted(map(float, filled)) == [0] * 12 + [1, 1]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:3] == ["labels and glyphs", "the same and copies by position", "OpenCLIP's loss"]
