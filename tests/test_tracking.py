"""Numbers reach MLflow exactly once: live, late, from parallel jobs, and after an outage."""

import multiprocessing
import shutil

import pytest
from mlflow.tracking import MlflowClient

from registers import tracking
from registers.measurements import Measurement
from registers.stores import opening, words

NOBODY = "http://127.0.0.1:9"  # no server listens there


@pytest.fixture
def new_store(tmp_path, monkeypatch):
    """(folder of all results, URI of a store that nobody has made yet)."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results", f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def store(new_store, tmp_path, empty_store):
    """The same with a store without runs."""
    shutil.copy(empty_store, tmp_path)
    return new_store


def runs(uri):
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(opening.EXPERIMENT)
    found = client.search_runs([experiment.experiment_id])
    return client, [run for run in found if "rule" in run.data.tags]  # not those above them


def numbers(run):
    """A run's metrics without what the process used of the machine."""
    return {name: v for name, v in run.data.metrics.items() if not name.startswith("system/")}


def losses(client, run):
    return [m.value for m in client.get_metric_history(run.info.run_id, "loss")]


def test_params_metrics_tags_and_artifacts_arrive(store, tmp_path):
    root, uri = store
    (tmp_path / "a.csv").write_text("x\n1\n")
    tags, params = {"registers": 4}, {"batch": 16}
    with tracking.run(root / "smoke", "linear", "dinov2-r4-s0", tags, params) as record:
        record.metrics({"loss": 2.0}, step=0)
        record.metrics({"loss": 1.0}, step=1)
        record.artifact(tmp_path / "a.csv")
    assert tracking.deliver(root, uri) == (1, 0)
    client, (run,) = runs(uri)
    assert run.info.status == "FINISHED"
    shape = {"method": "dinov2", "registers": "4", "seed": "0"}
    assert run.data.params == {"batch": "16"} | shape
    assert run.data.tags["registers"] == "4"
    assert run.data.tags["rule"] == "linear"
    assert run.data.tags["git_commit"]
    assert run.data.tags["mlflow.source.name"] == "registers measure linear dinov2-r4-s0"
    assert run.data.tags["mlflow.source.git.commit"] in run.data.tags["git_commit"]
    assert "Table 2" in run.data.tags["mlflow.note.content"]
    assert run.data.metrics["system/process_peak_memory_megabytes"] > 10
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(0, 2.0), (1, 1.0)]
    assert [f.path for f in client.list_artifacts(run.info.run_id)] == ["a.csv"]
    ids = run.info.experiment_id, run.info.run_id
    assert tracking.find_runs(uri, [record.key]) == {record.key: ids}


def test_main_rows_become_metrics_under_names_of_their_own(store):
    root, uri = store
    rows = [
        Measurement("segmentation", "iou", "a", 0.5, variant="disc"),
        Measurement("segmentation", "iou", "a", 0.25, variant="ring (small)"),
        Measurement("segmentation", "miou", "a", 0.375, data="world", token="patch"),
        Measurement("segmentation", "missing", "a", None),
        Measurement("segmentation", "by_rate", "a", 0.1, coordinate="lr", at=0.01),
        Measurement("segmentation", "by_layer", "a", 0.1, layer=2),
    ]
    with tracking.run(root / "smoke", "segmentation", "a", {}, {}) as record:
        record.measurements(rows)
    tracking.deliver(root, uri)
    _, (run,) = runs(uri)
    assert numbers(run) == {
        "segmentation/iou disc": 0.5,
        "segmentation/iou ring small": 0.25,
        "segmentation/miou": 0.375,
    }


def test_a_rule_that_runs_again_does_not_hide_its_former_run(store):
    root, uri = store
    for value in (1.0, 2.0):
        with tracking.run(root / "smoke", "linear", "dinov2-r4-s0", {}, {}) as record:
            record.metrics({"linear/top1": value})
        tracking.deliver(root, uri)
    client, (new, old) = runs(uri)
    assert (numbers(new), numbers(old)) == ({"linear/top1": 2.0}, {"linear/top1": 1.0})
    assert old.data.tags["superseded"] == "true" and "superseded" not in new.data.tags
    assert "superseded" in old.info.run_name
    assert tracking.find_runs(uri, [record.key])[record.key][1] == new.info.run_id
    parent = client.get_run(new.data.tags["mlflow.parentRunId"])
    assert parent.data.metrics["linear/top1"] == 2.0


def test_an_interrupted_job_continues_its_run(store):
    root, uri = store
    with pytest.raises(RuntimeError), tracking.run(root / "smoke", "train", "a", {}, {}) as record:
        record.metrics({"loss": 3.0}, 0)
        raise RuntimeError("killed")
    tracking.deliver(root, uri)
    with tracking.run(root / "smoke", "train", "a", {}, {}, resume=True) as record:
        record.metrics({"loss": 2.0}, 1)
    tracking.deliver(root, uri)
    client, (run,) = runs(uri)
    assert run.info.status == "FINISHED"
    assert losses(client, run) == [3.0, 2.0]


def test_a_server_that_is_away_loses_nothing(store):
    root, uri = store
    with tracking.run(root / "smoke", "train", "a", {}, {}) as record:
        record.metrics({"loss": 3.0})
        assert tracking.deliver(root, NOBODY) == (0, 1)
        record.metrics({"loss": 2.0}, 1)
    assert tracking.deliver(root, NOBODY) == (0, 1)
    assert tracking.deliver(root, uri) == (1, 0)
    client, (run,) = runs(uri)
    assert losses(client, run) == [3.0, 2.0]
    assert tracking.deliver(root, uri) == (0, 0)


def _job(root, uri, number):
    with tracking.run(root / "smoke", "train", f"b{number}", {}, {}) as record:
        for step in range(50):
            record.metrics({"loss": step, "lr": 0.1}, step)
            if step % 10 == 0:
                tracking.deliver(root, uri)
    tracking.deliver(root, uri)


def test_parallel_jobs_on_a_new_store_lose_no_metric(new_store):
    root, uri = new_store
    context = multiprocessing.get_context("spawn")
    jobs = [context.Process(target=_job, args=(root, uri, number)) for number in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    client, delivered = runs(uri)
    assert sorted(run.data.tags["subject"] for run in delivered) == ["b0", "b1", "b2"]
    assert all(losses(client, run) == list(range(50)) for run in delivered)


def test_an_unfinished_line_waits_for_its_end(store):
    root, uri = store
    record = tracking.Run(root / "smoke", "train", "a", {}, {})
    with open(record.spool, "a") as file:
        file.write('{"event": "metr')
    tracking.deliver(root, uri)
    with open(record.spool, "a") as file:
        file.write('ics", "values": {"loss": 1.0}, "step": 0, "time": 1}\n')
    tracking.deliver(root, uri)
    _, (run,) = runs(uri)
    assert numbers(run) == {"loss": 1.0}


def test_a_line_that_a_killed_job_left_unfinished_blocks_nothing(store, caplog):
    root, uri = store
    record = tracking.Run(root / "smoke", "train", "a", {}, {})
    with open(record.spool, "a") as file:
        file.write('{"event": "metr')
    record = tracking.Run(root / "smoke", "train", "a", {}, {}, resume=True)
    record.metrics({"loss": 2.0}, 1)
    assert tracking.deliver(root, uri) == (1, 0)
    _, (run,) = runs(uri)
    assert numbers(run) == {"loss": 2.0}
    assert "a damaged line is left out" in caplog.text


@pytest.mark.parametrize(
    "damage",
    ["", "{", "null", "[]", "{}", '{"bytes": "x", "run": ""}', '{"bytes": 99999, "run": "x"}'],
)
def test_a_damaged_record_of_delivery_counts_as_none(store, damage):
    """A job must not end over it: all is delivered again, in place of the former run."""
    root, uri = store
    with tracking.run(root / "smoke", "train", "a", {}, {}) as record:
        record.metrics({"loss": 3.0})
    tracking.deliver(root, uri)
    record.spool.with_suffix(".delivered").write_text(damage)
    assert tracking.deliver(root, uri) == (1, 0)
    assert tracking.deliver(root, uri) == (0, 0)
    client, (run,) = runs(uri)
    assert losses(client, run) == [3.0]


@pytest.mark.parametrize(
    "uri, expected",
    [
        ("sqlite:///runs/a@b/mlflow.db", "sqlite:///runs/a@b/mlflow.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://me:hunter2@host:5000/x", "https://***@host:5000/x"),
        ("postgresql://me:hun/t@er2@host/runs", "postgresql://***@host/runs"),
        ("https://hunter2@host", "https://***@host"),
        ("postgresql://host/runs?user=me&password=hunter2", None),
        ("cannot connect to mysql+pymysql://me:hunter2@host/runs, twice", None),
    ],
)
def test_a_password_is_masked(uri, expected):
    text = words.masked(uri)
    assert "hunter2" not in text and "t@er2" not in text
    assert "host" in text or text == uri
    assert expected is None or text == expected


def test_a_password_reaches_no_log(store, caplog, capfd):
    root, _ = store
    with tracking.run(root / "smoke", "train", "a", {}, {}) as record:
        record.metrics({"loss": 3.0})
    for uri in (
        "http://me:hunter2@127.0.0.1:9",
        "nonsense://me:hunter2@127.0.0.1:9/?token=hunter2",
    ):
        assert tracking.deliver(root, uri) == (0, 1)
        assert tracking.find_runs(uri, [record.key]) == {}
    assert caplog.text.count("MLflow at") == 4
    printed = capfd.readouterr()
    assert "hunter2" not in caplog.text + printed.out + printed.err
