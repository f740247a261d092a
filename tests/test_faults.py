"""What an unlucky and a hostile user found (2026-11-21): every fault has a test that names it.

L: work was lost. W: results were wrong. S: insecure. U: unclear, or wrongly refused.
"""

import ast
import json
import os
import re
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pipeline import ROOT, planned, planned_questions, snakemake

from registers import files
from registers.models import checkpoint
from registers.models.backbone import Architecture, build
from registers.tables import typeset

FAULTS = {
    "L1 bf16 ends every training": [
        "test_precision.py::test_a_method_trains_at_bfloat16_as_at_float32_and_resumes",
        "test_precision.py::test_two_processes_train_every_method_as_one_does",
    ],
    "L2 fractions that share a step, or change": [
        "test_train.py::test_fractions_that_share_a_step_leave_a_file_each",
        "test_train.py::test_a_resumed_run_writes_the_checkpoints_that_are_lost",
        "test_train.py::test_a_run_resumes_unless_what_its_weights_depend_on_has_changed",
    ],
    "L3 a damaged record of delivery": [
        "test_tracking.py::test_a_damaged_record_of_delivery_counts_as_none"
    ],
    "L4 a store deleted, moved, or without a run": [
        "test_stores.py::test_a_store_that_was_deleted_is_filled_from_the_spools",
        "test_stores.py::test_another_store_gets_everything_and_a_moved_one_nothing_twice",
        "test_stores.py::test_a_run_or_experiment_deleted_in_mlflow_blocks_nothing",
    ],
    "L5 killed or a full disk in MLflow's first migration": [
        "test_stores.py::test_a_half_migrated_store_is_set_aside_and_made_anew",
        "test_stores.py::test_a_file_that_is_no_store_is_set_aside",
        "test_stores.py::test_a_store_of_others_is_left_alone",
    ],
    "L6 kill -9 leaves a lock": [
        "test_run_lock.py::test_a_lock_is_removed_once_no_process_of_its_run_lives",
        "test_run_lock.py::test_snakemake_goes_on_after_a_kill_with_the_same_command",
    ],
    "L7 another mlflow_uri trains again": [
        "test_study_rules.py::test_the_store_of_numbers_is_no_part_of_a_command",
        "test_faults.py::test_what_a_change_of_settings_asks_again",
    ],
    "W0 an edit of the code reruns nothing": [
        "test_code_as_input.py::test_a_line_of_outliers_measures_norms_and_their_dependents_again",
        "test_digest.py::test_every_question_depends_on_its_module_and_on_what_that_imports",
    ],
    "W1 other data, the same manifest": [
        "test_fingerprints.py::test_the_state_follows_photos_classes_and_the_place",
        "test_faults.py::test_another_photo_or_root_lists_the_data_again",
    ],
    "W2 zero-shot reads a setting of linear": [
        "test_declared.py::test_a_question",
        "test_faults.py::test_what_a_change_of_settings_asks_again",
    ],
    "W3 cost reads recipes, sizes and registers": [
        "test_declared.py::test_a_question",
        "test_faults.py::test_what_a_change_of_settings_asks_again",
    ],
    "W4 damage is used": [
        "test_checkpoint.py::test_damage_is_named_with_its_cure",
        "test_checkpoint.py::test_an_edited_card_is_not_believed",
        "test_tokens.py::test_a_flipped_bit_is_found_and_the_remedy_is_named",
        "test_tokens.py::test_a_cut_table_a_lost_array_and_a_cut_index_are_found",
        "test_damage.py::test_damaged_arrays_are_refused",
        "test_damage.py::test_a_damaged_world_is_refused",
        "test_faults.py::test_a_swapped_bank_is_refused",
    ],
    "W5 rows of zero bytes, or none": ["test_damage.py::test_damaged_rows_are_refused"],
    "W6 fingerprints without the bytes": [
        "test_fingerprints.py::test_folders_of_bitmaps_differ_by_their_pixels",
        "test_fingerprints.py::test_a_file_rewritten_in_place_changes_the_cached_fingerprint",
    ],
    "W7 the commit of a repository around us": [
        "test_damage.py::test_a_checkout_inside_a_foreign_repository_has_no_commit"
    ],
    "W8 counts written as texts": [
        "test_settings.py::test_a_scale_keeps_the_run_small_however_the_counts_are_written"
    ],
    "W9 infinite settings": [
        "test_settings.py::test_a_wrong_value_of_the_scale_is_named_in_one_line"
    ],
    "S1 a setting in a shell line": [
        "test_faults.py::test_no_shell_line_carries_a_text_of_the_user",
        "test_study_rules.py::test_the_store_of_numbers_is_no_part_of_a_command",
    ],
    "S2 a password in a log": [
        "test_tracking.py::test_a_password_is_masked",
        "test_tracking.py::test_a_password_reaches_no_log",
    ],
    "S3 PostScript by another name": [
        "test_hostile_files.py::test_postscript_by_another_name_starts_nothing",
        "test_hostile_files.py::test_other_formats_that_nobody_asked_for_are_refused",
    ],
    "S4 archives that write outside": [
        "test_download.py::test_a_chain_of_links_writes_nothing_outside",
        "test_download.py::test_a_class_name_makes_no_folder_outside",
    ],
    "S5 texts, labels and images without bounds": [
        "test_hostile_files.py::test_labels_that_no_data_set_has_are_one_line",
        "test_hostile_files.py::test_a_text_of_brackets_is_a_caption",
        "test_hostile_files.py::test_a_strip_is_refused_by_its_header",
        "test_hostile_files.py::test_decompression_bombs_take_no_memory",
        "test_download.py::test_an_archive_of_too_many_bytes_is_refused",
    ],
    "U shards with braces or stars": [
        "test_settings.py::test_shards_may_be_named_by_braces_and_stars"
    ],
    "U settings that end in a traceback": [
        "test_settings.py::test_no_random_settings_end_in_a_traceback",
        "test_settings.py::test_a_wrong_choice_is_named_in_one_line",
    ],
    "U a full disk": ["test_faults.py::test_a_full_disk_is_one_line_with_the_file"],
    "U a cut state": ["test_checkpoint.py::test_a_damaged_state_is_named"],
    "U cut weights, maps, listings": [
        "test_checkpoint.py::test_damage_is_named_with_its_cure",
        "test_damage.py::test_damaged_arrays_are_refused",
        "test_faults.py::test_a_damaged_listing_is_made_anew",
    ],
    "U classes and JSON without a file's name": [
        "test_prompts.py::test_wrong_files_are_one_line_before_anything_is_trained",
        "test_readers.py::test_coco_segmentations_that_cannot_be_drawn_are_one_line",
        "test_damage.py::test_a_damaged_header_counts_as_no_world",
        "test_faults.py::test_annotations_that_are_no_json_are_named",
        "test_faults.py::test_a_malformed_classes_yaml_is_named",
    ],
    "U loops of links, names of other alphabets": [
        "test_hostile_files.py::test_a_loop_of_links_and_a_latin_1_name_stop_nothing"
    ],
    "U a quote in the project's path": [
        "test_stores.py::test_a_folder_may_have_a_quote_in_its_name"
    ],
    "U a server that never answers": [
        "test_stores.py::test_a_server_that_never_answers_holds_up_little",
        "test_stores.py::test_a_database_server_that_is_away_is_asked_once",
    ],
    "U params.yaml broken, or in another folder": [
        "test_settings.py::test_a_broken_params_file_is_one_line",
        "test_faults.py::test_snakemake_takes_the_folders_own_params_and_names_broken_ones",
    ],
    "U signs of TeX and HTML in names": [
        "test_faults.py::test_a_name_full_of_signs_is_drawn_as_it_is",
        "test_faults.py::test_names_are_no_html",
    ],
    "U letters lost from folders of results": [
        "test_settings.py::test_data_sets_of_other_letters_do_not_share_a_results_folder"
    ],
    "U a key that stands twice": ["test_settings.py::test_a_broken_params_file_is_one_line"],
    "U a job that makes no step": [
        "test_watchdog.py::test_a_data_set_that_sleeps_is_named_in_the_log"
    ],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_test_names_the_fault(fault):
    for test in FAULTS[fault]:
        file, name = test.split("::")
        tree = ast.parse((Path(__file__).parent / file).read_text())
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in functions, test


# --- what a change reruns -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, questions",
    [
        ({"mlflow_uri": "sqlite:///elsewhere.db"}, set()),
        ({"overrides": {"linear.val_images": 31}}, {"linear", "zeroshot"}),
        ({"overrides": {"recipes.mae.patch": 8, "recipes.mae.size": "small"}}, {"cost"}),
    ],
)
def test_what_a_change_of_settings_asks_again(finished, settings, questions):
    targets = [
        f"results/smoke/measurements/{name}.csv"
        for name in ("cost", "linear/openclip-r4-s0", "zeroshot/openclip-r4-s0")
    ]
    output = snakemake(finished, "--dry-run", settings=settings, targets=targets)
    assert planned_questions(output) | _exact(output) == questions
    assert not {"train", "train_large", "tokens"} & planned(output).keys()


def _exact(output):
    return set(re.findall(r"output: results/smoke/measurements/(\w+)\.csv", output))


def test_another_photo_or_root_lists_the_data_again(tmp_path):
    def photo(name, root="data"):
        path = tmp_path / root / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40, 40), 50).convert("RGB").save(path)

    def plan(*flags, root="data"):
        use = {role: "folder:photos" for role in ("labels", "images", "eval")}
        settings = {"data": {"root": root, "use": use}}
        target = "results/smoke-photos/data/eval.json"
        output = snakemake(tmp_path, *flags, settings=settings, targets=[target])
        return planned(output).get("data", 0)

    for place in ("train/a/1.png", "train/b/1.png", "val/a/2.png", "val/b/2.png"):
        photo(place)
        photo(place, "other")
    assert plan() == 1
    assert plan("--dry-run") == 0
    photo("val/c/3.png")
    assert plan("--dry-run") == 1
    assert plan("--dry-run", root="other") == 1


def test_snakemake_takes_the_folders_own_params_and_names_broken_ones(tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text("registers: [8]\nmethods: [deit3]\n")
    plain = {"settings": {"methods": ["deit3"]}, "targets": ["all"]}
    output = snakemake(tmp_path, "--dry-run", **plain)
    assert "trained=deit3-r8-s0" in output
    for text in ("", "- a", "a:\tb: c", "seeds: [0]\nseeds: [1]"):
        params.write_text(text)
        output = snakemake(tmp_path, "--dry-run", ok=False, **plain)
        (line,) = [line for line in output.splitlines() if line.startswith("registers: ")]
        assert "params.yaml: " in line and "Traceback" not in output


# --- what reaches a shell -------------------------------------------------------------------------


def test_no_shell_line_carries_a_text_of_the_user():
    """Wildcards have a constraint, which lets no sign of a shell pass; the rest is ours."""
    rules = [*ROOT.glob("workflow/**/*.smk"), ROOT / "Snakefile", ROOT / "workflow/study/Snakefile"]
    assert len(rules) > 6
    found = []
    for file in rules:
        text = file.read_text()
        for shell in re.findall(r"shell:\n((?:\s+\".*\"\n)+)", text):
            for name in re.findall(r"\{([^}]*)\}", shell):
                found.append(name)
                if name in ("log", "threads"):
                    continue
                assert name.startswith("wildcards."), f"{file}: {{{name}}}"
                assert _is_constrained(name.removeprefix("wildcards."), text)
        assert text.count("shell(") == text.count('shell("registers deliver")')
    assert len(found) > 15


def _is_constrained(wildcard, text):
    """In the rules' own file or for all rules, by a pattern without signs that a shell knows."""
    everywhere = (ROOT / "workflow/rules/common.smk").read_text()
    pattern = rf"\b{wildcard}=(.+)"
    constraints = re.findall(pattern, text) + re.findall(pattern, everywhere)
    return bool(constraints)


def test_a_wildcard_that_a_shell_would_read_matches_no_rule(tmp_path):
    for target in ("measurements/norms/dinov2-r0-s0;touch pwned.csv", "logs/$(touch pwned).log"):
        output = snakemake(tmp_path, "--dry-run", targets=[f"results/smoke/{target}"], ok=False)
        assert "MissingRuleException" in output
    assert not (tmp_path / "pwned").exists()


# --- damage and full disks ------------------------------------------------------------------------


def test_a_swapped_bank_is_refused(finished, tmp_path):
    banks = tmp_path / "results/smoke/banks"
    banks.mkdir(parents=True)
    (banks / "dinov2-r4-s0").symlink_to(finished / "results/smoke/banks/dinov2-r0-s0")
    done = subprocess.run(
        [sys.executable, "-m", "registers.cli", "measure", "norms", "dinov2-r4-s0"],
        cwd=tmp_path,
        env={**os.environ, "REGISTERS_PARAMS": json.dumps({"scale": "smoke"})},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "holds dinov2-r0-s0; must be of dinov2-r4-s0" in done.stderr.splitlines()[-1]


@contextmanager
def full_disk(size=20_000):
    """No file grows beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _save_state(path):
    checkpoint.save_state(path, {"weights": torch.zeros(100_000)})


def _save_weights(path):
    backbone = build(Architecture(64, 2, 2, 4, 16), "dinov2-r0-s0", ((0.5,) * 3, (0.5,) * 3))
    checkpoint.save(path, backbone, {})


def _save_arrays(path):
    files.write_arrays(path, {"a": np.random.default_rng(0).random(20_000)})


@pytest.mark.parametrize(
    "save, name",
    [
        (_save_state, "state.pt"),
        (_save_weights, "last.safetensors"),
        (_save_arrays, "maps.npz"),
        (lambda path: files.write_text(path, "x" * 100_000), "paper.html"),
    ],
)
def test_a_full_disk_is_one_line_with_the_file(tmp_path, save, name):
    path = tmp_path / name
    path.write_text("the one before")
    with full_disk(), pytest.raises(OSError, match=rf"{name}: not written .*MB are free") as error:
        save(path)
    assert "\n" not in str(error.value)
    assert path.read_text() == "the one before"
    assert [file.name for file in tmp_path.iterdir()] == [name]  # no half of a file is left


def test_a_damaged_listing_is_made_anew(tmp_path):
    from registers.readers.image_folder import ImageFolder

    for split in ("train", "val"):
        for kind in "ab":
            folder = tmp_path / "photos" / split / kind
            folder.mkdir(parents=True)
            Image.new("RGB", (20, 20), "red").save(folder / "1.png")
    cache = tmp_path / "index.npz"
    fingerprint = ImageFolder(tmp_path / "photos", "train", cache=cache).fingerprint
    for damaged in (b"", b"PK\3\4 and no zip", cache.read_bytes()[:-20]):
        cache.write_bytes(damaged)
        assert ImageFolder(tmp_path / "photos", "train", cache=cache).fingerprint == fingerprint


def test_annotations_that_are_no_json_are_named(tmp_path):
    from registers.readers.coco import _Instances
    from registers.settings.errors import ConfigError

    path = tmp_path / "instances_train2014.json"
    for text in ("", "{", "[1]", '{"images": 3}'):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"instances_train2014\.json: not COCO's") as error:
            _Instances.read(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[", "classes: 3", "classes: {a: b}", "- a", "[" * 5000])
def test_a_malformed_classes_yaml_is_named(tmp_path, text):
    from registers.readers.coco import SemanticMasks
    from registers.settings.errors import ConfigError

    path = tmp_path / "classes.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"classes\.yaml: must be YAML") as error:
        SemanticMasks(tmp_path, tmp_path, path)
    assert "\n" not in str(error.value)


# --- names of people's files ----------------------------------------------------------------------


def test_a_name_full_of_signs_is_drawn_as_it_is(tmp_path):
    import matplotlib

    from registers.figures.paint import style

    with matplotlib.rc_context():
        figure = matplotlib.figure.Figure()
        axes = figure.subplots()
        axes.set_title(r"$\frac{$ & <b>")
        axes.plot([0, 1], label="$x$ {")
        axes.legend()
        axes.set_xticks([0, 1], ["$a", "b$^"])
        style.save(figure, tmp_path / "fig08")
    assert (tmp_path / "fig08.png").exists()


def test_names_are_no_html():
    text = typeset.markdown(
        pd.DataFrame({"class": ["<img src=x onerror=alert(1)>", "a|b", "A & B\nC"]})
    )
    assert "<" not in text and "&lt;img" in text
    assert text.count("\n") == 5 and "a\\|b" in text and "A &amp; B C" in text
