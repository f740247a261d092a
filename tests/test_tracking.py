"""Numbers reach MLflow exactly once: live, late, from parallel jobs, and after a server was away."""

import multiprocessing

import pytest
from mlflow.tracking import MlflowClient

from registers import tracking
from registers.measurements import Measurement


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results", f"sqlite:///{tmp_path}/mlflow.db"


def runs(uri):
    client = MlflowClient(tracking_uri=uri)
    return client, client.search_runs(
        [client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id]
    )


def test_params_metrics_tags_and_artifacts_arrive(store, tmp_path):
    root, uri = store
    (tmp_path / "a.csv").write_text("x\n1\n")
    with tracking.run(
        root / "smoke", "linear", "dinov2-r4-s0", {"registers": 4}, {"batch": 16}
    ) as record:
        record.metrics({"loss": 2.0}, step=0)
        record.metrics({"loss": 1.0}, step=1)
        record.measurements(
            [
                Measurement("linear", "top1", "dinov2-r4-s0", 0.5),
                Measurement("linear", "top5", "dinov2-r4-s0", None),
            ]
        )
        record.artifact(tmp_path / "a.csv")
    assert tracking.deliver(root, uri) == (1, 0)
    client, (run,) = runs(uri)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"batch": "16"}
    assert (
        run.data.tags["registers"] == "4"
        and run.data.tags["rule"] == "linear"
        and run.data.tags["git_commit"]
    )
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")] == [
        (0, 2.0),
        (1, 1.0),
    ]
    assert run.data.metrics["linear/top1"] == 0.5 and "linear/top5" not in run.data.metrics
    assert [f.path for f in client.list_artifacts(run.info.run_id)] == ["a.csv"]
    assert tracking.find_runs(uri, [record.key]) == {
        record.key: (run.info.experiment_id, run.info.run_id)
    }


def test_a_rule_that_runs_again_replaces_its_run(store):
    root, uri = store
    for value in (1.0, 2.0):
        with tracking.run(root / "smoke", "linear", "a", {}, {}) as record:
            record.metrics({"top1": value})
        tracking.deliver(root, uri)
    _, (run,) = runs(uri)
    assert run.data.metrics["top1"] == 2.0


def test_a_resumed_run_goes_on_in_the_same_run(store):
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
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 2


def test_a_server_that_is_away_loses_nothing(store):
    root, uri = store
    with tracking.run(root / "smoke", "train", "a", {}, {}) as record:
        record.metrics({"loss": 3.0})
        assert tracking.deliver(root, "http://127.0.0.1:9") == (0, 1)  # nobody listens there
        record.metrics({"loss": 2.0}, 1)
    assert tracking.deliver(root, "http://127.0.0.1:9") == (0, 1)
    assert tracking.deliver(root, uri) == (1, 0)
    client, (run,) = runs(uri)
    assert [m.value for m in client.get_metric_history(run.info.run_id, "loss")] == [3.0, 2.0]
    assert tracking.deliver(root, uri) == (0, 0)


def _job(root, uri, number):
    with tracking.run(root / "smoke", "train", f"b{number}", {}, {}) as record:
        for step in range(50):
            record.metrics({"loss": step, "lr": 0.1}, step)
            if step % 10 == 0:
                tracking.deliver(root, uri)
    tracking.deliver(root, uri)


def test_parallel_jobs_on_a_new_store_lose_no_metric(store):
    root, uri = store
    context = multiprocessing.get_context("spawn")
    jobs = [context.Process(target=_job, args=(root, uri, n)) for n in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    client, found = runs(uri)
    assert sorted(r.data.tags["subject"] for r in found) == ["b0", "b1", "b2"]
    for run in found:
        assert [m.value for m in client.get_metric_history(run.info.run_id, "loss")] == list(
            range(50)
        )


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
    assert run.data.metrics == {"loss": 1.0}
