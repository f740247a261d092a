"""A stage of dvc.yaml: its lock is true, and a failure leaves no mixture."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from pipeline import ROOT

from registers import artifacts, headlines, stage, tracking, verbs
from registers.layout import Layout
from registers.settings.load import load_settings

HEAD = "output_file\tdate\trule\tlog-file(s)\tstatus\tplan"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return load_settings({"scale": "smoke", "registers": [0, 4]})


def put(path, text="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def snakemake(monkeypatch):
    """Stands for Snakemake: its summary; what it is called with; whether it fails."""

    class Fake:
        summary, calls, fails = HEAD, [], False

        def __call__(self, *flags, quiet=False):
            if quiet:
                return f"Building DAG of jobs...\n{self.summary}\n"
            self.calls.append(flags)
            if self.fails:
                raise subprocess.CalledProcessError(1, "snakemake")
            return ""

    fake = Fake()
    fake.calls = []
    monkeypatch.setattr(stage, "_snakemake", fake)
    return fake


def test_what_is_due_is_gone_before_anything_can_fail(settings, snakemake):
    layout = settings.layout
    old = put(layout.measurement("norms", "dinov2-r0-s0"))
    digest = put(old.with_name(f"{old.name}.sha256"))
    kept = put(layout.measurement("linear", "dinov2-r0-s0"))
    page = put(layout.page)
    other = put(Layout(Path("results/laptop")).measurement("norms", "dinov2-r0-s0"))
    snakemake.summary = "\n".join(
        [
            HEAD,
            f"{old}\tx\tmeasure\t-\tparams changed\tupdate pending",
            f"{kept}\tx\tmeasure\t-\tok\tno update",
            f"{page}\tx\treport\t-\tupdated input files\tupdate pending",
            f"{other}\tx\tmeasure\t-\tparams changed\tupdate pending",
            "results/smoke/measurements/depth/a.csv\t-\tmeasure\t-\tmissing\tupdate pending",
        ]
    )
    snakemake.fails = True
    with pytest.raises(subprocess.CalledProcessError):
        stage.run("measurements", settings)
    assert not old.exists() and not digest.exists() and not page.exists()
    assert kept.exists() and other.exists()
    assert snakemake.calls == [("--until", "measure", "measure_with_arrays", "exact")]


def test_backbones_of_other_settings_step_aside_and_come_back(settings, snakemake):
    layout = settings.layout
    ours = put(layout.checkpoint("dinov2-r4-s0"))
    theirs = put(layout.checkpoint("dinov2-r4-s1"))
    rows = put(layout.measurement("norms", "dinov2-r4-s1-at050"))
    put(layout.measurement("cost"))
    stage.run("reports", settings)
    assert ours.exists() and layout.measurement("cost").exists()
    assert not theirs.parent.exists() and not rows.exists()
    assert (layout.aside / "checkpoints/dinov2-r4-s1/last.safetensors").exists()
    stage.run("reports", load_settings({"scale": "smoke", "registers": [0, 4], "seeds": [1]}))
    assert theirs.exists() and rows.exists() and not ours.exists()


def test_a_folder_of_one_experiment_gets_no_store(tmp_path, monkeypatch):
    """`dvc exp run --temp` filled one with the whole run, in a folder that it then deletes."""
    folder = tmp_path / ".dvc/tmp/exps/standalone/tmp1"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    delivered = []
    monkeypatch.setattr(tracking, "deliver", lambda *a, **o: delivered.append(a) or (0, 0))
    verbs.deliver(load_settings({"scale": "smoke"}), None)
    assert not delivered
    monkeypatch.chdir(tmp_path)
    verbs.deliver(load_settings({"scale": "smoke"}), None)
    assert len(delivered) == 1


def test_stages_are_those_of_dvc_yaml():
    file = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    stages = file["stages"]
    assert list(stages) == list(stage.RULES)
    params = set(yaml.safe_load((ROOT / "params.yaml").read_text()))
    for name, content in stages.items():
        assert content["cmd"] == f"PYTHONPATH=$PWD/src python -m registers.stage {name}"
        assert {"Snakefile", "workflow", "paper", "src/registers"} <= set(content["deps"])
        # where numbers are tracked makes none, and a stage always trains stale weights anew
        assert set(content["params"]) == params - {"mlflow_uri", "stale"}
    outs = [path for content in stages.values() for out in content["outs"] for path in out]
    assert all("${scale}" in path for path in outs)
    assert not [path for path in outs if "banks" in path or "logs" in path or "benchm" in path]
    names = {Path(path).stem for path in file["metrics"]}
    assert names == {*headlines.COMPARED, "claims"}


def test_declared_plots_are_files_of_the_run():
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]
    settings = load_settings({"scale": "laptop"})
    drawn = {path for a in artifacts.load().values() for path in a.outputs(settings.layout)}
    drawn.add(str(settings.layout.training_curves))
    assert {path.replace("${scale}", "laptop") for path in plots} <= drawn


def test_a_stage_trains_stale_weights_anew(monkeypatch, settings):
    """Else its lock would certify weights that the code at hand never made."""
    commands = []

    def run(command, **options):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, HEAD)

    monkeypatch.setattr(subprocess, "run", run)
    stage.run("checkpoints", settings)
    assert len(commands) == 2
    assert all("stale=retrain" in command for command in commands)
    assert json.dumps(commands[1]).count("--until") == 1
