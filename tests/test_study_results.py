"""A row tells of a run what its files tell: at which look, of which layer, before or after."""

import itertools
import json
from pathlib import Path

import pandas as pd
import pytest

from registers.study.results import load
from registers.study.sweep import read_sweep

SIGN = "redundant_over_others"
KINDS = ("normal", "outlier", "tail", "redundant", "other")
EXCHANGED = [f"exchanged{which}" for which in ("", "_last", "_other", "_registers")]


def write(folder: Path, course: list[float], end: float, steps: int = 200, **told) -> None:
    """A run of the headline with four registers that was looked at every 100 steps. told: numbers,
    signs and settings of its regime besides, columns of its history, and other `facts`."""
    folder.mkdir(parents=True)
    sweep = read_sweep()
    facts = dict(variant=sweep.headline, registers=4, seed=0, status="finished", steps=steps)
    regime = sweep.regime(sweep.headline).model_dump(mode="json") | told.get("regime", {})
    last = f"layer{regime['depth']}"
    numbers = {f"layer1/{SIGN}": 0.5, f"{last}/{SIGN}": end}
    parts = {"constant": 0.1, "of_scene": 0.6, "own": 0.3, "by_label": 0.8}
    signs = {f"redundant_{part}": value for part, value in parts.items()}
    numbers, signs = numbers | told.get("numbers", {}), signs | told.get("signs", {})
    run = facts | dict(seconds=1.0, regime=regime, numbers=numbers, signs=signs)
    run |= told.get("facts", {})
    (folder / "run.json").write_text(json.dumps(run))
    looks = {"step": [100 * k for k in range(len(course))], f"{last}/{SIGN}": course}
    looks[f"layer1/{SIGN}"] = [9.0] * len(course)  # of another layer
    looks[f"{last}/max_over_median"] = [1.5] * len(course)
    looks |= told.get("history", {})
    pd.DataFrame(looks).to_csv(folder / "history.csv", index=False)


def row_of(folder: Path, course: tuple[float, ...] = (1.0, 2.0), **told) -> pd.Series:
    write(folder / "v-r4-s0", list(course), 1.0, **told)
    return load(folder, read_sweep()).iloc[0]


@pytest.mark.parametrize(
    "course, end, half, most",
    [
        ([1.0, 2.0, 4.0], 3.8, 2.0, 4.0),
        ([1.0, 5.0, 4.0], 3.8, 5.0, 5.0),  # largest on the way
        ([1.0, 2.0, 3.7], 3.8, 2.0, 3.8),  # the end is examined on other pictures than the looks
    ],
)
def test_a_course_is_told_halfway_and_at_its_largest(tmp_path, course, end, half, most):
    write(tmp_path / "v-r4-s0", course, end)
    row = load(tmp_path, read_sweep()).iloc[0]
    assert row[f"half/{SIGN}"] == half
    assert row[f"peak/{SIGN}"] == most
    assert row[SIGN] == end and row["most_over_others"] == end


def test_a_run_without_a_look_halfway_tells_no_middle(tmp_path):
    write(tmp_path / "v-r4-s0", [1.0, 2.0, 4.0, 4.5], 4.4, steps=300)
    row = load(tmp_path, read_sweep()).iloc[0]
    assert pd.isna(row[f"half/{SIGN}"]) and row[f"peak/{SIGN}"] == 4.5


def test_what_blanks_are_made_of_is_told_under_its_own_name(tmp_path):
    write(tmp_path / "v-r4-s0", [1.0, 2.0], 1.0)
    row = load(tmp_path, read_sweep()).iloc[0]
    parts = ["redundant_constant", "redundant_of_scene", "redundant_own", "redundant_by_label"]
    assert row[parts].tolist() == [0.1, 0.6, 0.3, 0.8]


def test_what_cls_looks_at_is_told_of_the_last_block_and_heads_of_any(tmp_path):
    names = ("cls_on_redundant", "cls_on_registers", "head_on_redundant", "head_on_registers")
    shares = {1: (0.7, 0.6, 0.2, 0.3), 2: (0.8, 0.9, 0.5, 0.1), 3: (0.1, 0.25, 0.4, 0.0)}
    signs = {
        f"layer{layer}/{name}": share
        for layer, of_layer in shares.items()
        for name, share in zip(names, of_layer, strict=True)
    }
    row = row_of(tmp_path, signs=signs, regime={"depth": 3})
    assert row[list(names)].tolist() == [0.1, 0.25, 0.5, 0.3]


def test_weights_of_the_query_and_attention_on_registers_are_told_under_their_own_names(tmp_path):
    signs = dict(pool_on_redundant=0.1, pool_on_registers=0.2, pool_on_marked=0.3)
    found = {"layer1/attention_on_registers": 0.4, "layer2/attention_on_registers": 0.5}
    row = row_of(tmp_path, signs=signs | found)
    assert row[list(signs)].tolist() == list(signs.values())
    assert row.attention_on_registers == 0.5


def test_a_sink_is_redundant_where_its_patch_is_so_in_nearly_all_scenes(tmp_path):
    #         share of attention, in how many scenes redundant, norm over the median
    sinks = {1: (0.3, 0.95, 4.0), 2: (0.2, 0.99, 5.0), 3: (0.6, 0.85, 6.0)}
    names = ("attention_on_a_patch", "sink_redundant", "sink_over_median")
    signs = {
        f"layer{layer}/{name}": value
        for layer, values in sinks.items()
        for name, value in zip(names, values, strict=True)
    }
    row = row_of(tmp_path, signs=signs)
    assert row[["sink", "redundant_sink", "redundant_sink_norm"]].tolist() == [0.6, 0.3, 4.0]


def test_early_signs_are_those_of_their_step(tmp_path):
    course = [0.1, 0.2, 0.3, 0.4, 0.5]  # step 300 is the fourth look
    columns = ("pool_on_redundant", "layer1/head_on_redundant", "layer2/head_on_redundant")
    history = {name: [k + value for value in course] for k, name in enumerate(columns)}
    row = row_of(tmp_path, course, history=history, steps=400)
    told = ["early/pool_on_redundant", "early/head_on_redundant"]
    assert row[told].tolist() == [0.4, 2.4]


def test_numbers_of_the_examination_keep_their_names(tmp_path):
    parts = [
        (("",), ("cutoff", "share", "class/chance", "class/cls", "redundant/all")),
        (("",), ("objects/outlier", "second_mode_of_redundant")),
        (("redundant", "neighbours", "class", "position/top1", "reconstruction/l2"), KINDS),
        (("labels/first", "labels/last"), ("cls", "redundant", "other", "register")),
        (("hidden_cls",), ("redundant", "last", "other", "marked", "but_redundant", "patches")),
        (EXCHANGED, ("own", "donor", "labels")),
        (("hidden", "hidden_local", "unread"), ("all", "redundant", "other")),
    ]
    pairs = [pair for ends in parts for pair in itertools.product(*ends)]
    names = ["/".join(pair).lstrip("/") for pair in pairs]
    numbers = {name: float(k) for k, name in enumerate(names)}
    assert row_of(tmp_path, numbers=numbers)[names].tolist() == list(numbers.values())


def test_as_many_others_are_hidden_only_where_there_are_others(tmp_path):
    numbers = {"hidden/all": 0.9, "hidden/redundant": 0.5, "hidden/other": 0.8}
    row = row_of(tmp_path, numbers=numbers)
    assert row[["hidden/all", "hidden/redundant"]].tolist() == [0.9, 0.5]
    assert pd.isna(row["hidden/other"])


def test_of_registers_the_one_that_tells_best_is_told(tmp_path):
    numbers = {"class/redundant": 0.9, "class/reg0": 0.3, "class/reg1": 0.6, "class/reg2": 0.5}
    assert row_of(tmp_path, numbers=numbers)["class/register"] == 0.6


def test_ratios_are_of_the_last_block_before_the_first_step_and_after_the_last(tmp_path):
    numbers = {f"layer{n}/max_over_median": ratio for n, ratio in ((1, 9.0), (2, 7.0), (3, 4.0))}
    signs = {f"layer{n}/kurtosis": value for n, value in ((1, 9.0), (2, 7.0), (3, 3.5))}
    history = {"layer3/max_over_median": [1.5, 3.0], "layer1/max_over_median": [8.0, 8.0]}
    numbers |= {f"layer1/{SIGN}": 2.5, f"{SIGN}/embedding": 1.25}
    told = dict(numbers=numbers, signs=signs)
    row = row_of(tmp_path, regime={"depth": 3, "batch": 16}, history=history, **told)
    assert row[["start_ratio", "ratio", "any_layer", "kurtosis"]].tolist() == [1.5, 4.0, 9.0, 3.5]
    assert row.most_over_others == 2.5 and row[SIGN] == 1.0
    assert row.embedding_over_others == 1.25 and row.scenes == 200 * 16


def test_second_modes_are_counted_over_layers_and_the_most_redundant_is_told(tmp_path):
    modes = {"layer1/second_mode": 1.0, "layer2/second_mode": 0.0, "layer3/second_mode": 1.0}
    shares = {"layer1/redundant_outlier": 0.8, "layer3/redundant_outlier": 0.6}
    row = row_of(tmp_path, numbers=modes | shares)
    assert row.layers_with_second_mode == 2 and row.most_redundant_layer == 0.8


@pytest.mark.parametrize("weight, told", [(1.0, 0.7), (0.0, None)])
def test_the_accuracy_of_a_head_that_was_never_trained_is_not_told(tmp_path, weight, told):
    row = row_of(tmp_path, signs={"accuracy": 0.7}, regime={"label": weight})
    assert row.accuracy == told if told else pd.isna(row.accuracy)


HELD = dict(second_mode=True, redundant=True, global_not_local=True, stored=True)
TOLD = {"reg0": (0.2, 0.3), "reg3": (0.7, 0.8), "normal": (0.4, 0.6), "redundant": (0.4, 0.5)}


@pytest.mark.parametrize(
    "change, taken_over, store",
    [
        ({}, True, True),
        (dict(normal=(0.5, 0.75)), False, True),  # intervals touch
        (dict(redundant=(0.5, 0.75)), True, False),
        (dict(normal=None), False, True),
        (dict(without=dict(global_not_local=False)), False, True),
        (dict(without=dict(stored=False)), True, False),
        (dict(beside=dict(second_mode=True)), False, True),
        (dict(beside=dict(stored=True)), True, False),
        (dict(partner=dict(seed=1)), None, None),
        (dict(partner=dict(regime={"heads": 2})), None, None),
        (dict(partner=dict(regime={"register_gain": 0.5})), True, True),
        (dict(partner=dict(regime={"patches_see_registers": False})), True, True),
        (dict(status="diverged"), None, None),
    ],
)
def test_registers_take_over_where_one_surely_tells_more_than_a_patch(
    tmp_path, change, taken_over, store
):
    intervals = {f"class/{k}": change.get(k, v) for k, v in TOLD.items() if change.get(k, v)}
    gone = dict.fromkeys(HELD, False) | change.get("beside", {})
    beside = dict(intervals=intervals, conditions=gone, status=change.get("status", "finished"))
    held = HELD | change.get("without", {})
    other = change.get("partner", {})
    facts = dict(registers=0, seed=other.get("seed", 0), conditions=held, intervals={})
    write(tmp_path / "v-r4-s0", [1.0], 1.0, facts=beside)
    write(tmp_path / "v-r0-s0", [1.0], 1.0, facts=facts, regime=other.get("regime", {}))
    row = load(tmp_path, read_sweep()).set_index("run").loc["v-r4-s0"]
    assert row[["registers_take_over", "store_taken_over"]].tolist() == [taken_over, store]
