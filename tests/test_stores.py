"""MLflow's store is deleted, moved, damaged, half made or out of reach: no number is lost."""

import json
import shutil
import socket
import sqlite3
import time

import pytest
import sqlalchemy
from mlflow.tracking import MlflowClient

from registers import tracking
from registers.stores import opening


@pytest.fixture
def migrated(store, empty_store):
    root, file = store
    shutil.copy(empty_store, file)
    return root, file


@pytest.fixture
def store(tmp_path, monkeypatch):
    """(folder of all results with two runs to deliver, file of a new store)."""
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        with tracking.run(tmp_path / "results/smoke", "train", name, {}, {}) as record:
            record.metrics({"loss": 3.0})
    return tmp_path / "results", tmp_path / "mlflow.db"


def uri(file):
    return f"sqlite:///{file}"


def runs(file):
    client = MlflowClient(tracking_uri=uri(file))
    experiment = client.get_experiment_by_name(opening.EXPERIMENT)
    delivered = client.search_runs([experiment.experiment_id])
    return client, {r.data.tags["subject"]: r for r in delivered if "rule" in r.data.tags}


def test_a_store_that_was_deleted_is_filled_from_the_spools(migrated, empty_store):
    root, file = migrated
    assert tracking.deliver(root, uri(file)) == (2, 0)
    file.unlink()
    # this process cannot go back to MLflow's first steps: the next one can
    assert tracking.deliver(root, uri(file)) == (0, 2)
    shutil.copy(empty_store, file)  # MLflow's first migration
    assert tracking.deliver(root, uri(file)) == (2, 0)
    assert tracking.deliver(root, uri(file)) == (0, 0)
    with sqlite3.connect(file) as database:
        query = "SELECT count(*) FROM runs WHERE name LIKE 'train %'"
        assert database.execute(query).fetchone() == (2,)


def test_another_store_gets_everything_and_a_moved_one_nothing_twice(
    migrated, empty_store, tmp_path
):
    root, file = migrated
    tracking.deliver(root, uri(file))
    other = tmp_path / "other.db"
    shutil.copy(empty_store, other)
    assert tracking.deliver(root, uri(other)) == (2, 0)
    assert runs(other)[1].keys() == {"a", "b"}
    moved = tmp_path / "moved.db"
    other.rename(moved)
    assert tracking.deliver(root, uri(moved)) == (0, 0)


def test_a_run_or_experiment_deleted_in_mlflow_blocks_nothing(migrated):
    root, file = migrated
    tracking.deliver(root, uri(file))
    client, delivered = runs(file)
    client.delete_run(delivered["a"].info.run_id)
    for name in "ab":
        resumed = tracking.Run(root / "smoke", "train", name, {}, {}, resume=True)
        resumed.metrics({"loss": 2.0}, 1)
    assert tracking.deliver(root, uri(file)) == (2, 0)
    client, delivered = runs(file)
    losses = {
        name: [metric.value for metric in client.get_metric_history(run.info.run_id, "loss")]
        for name, run in delivered.items()
    }
    assert losses == {"a": [3.0, 2.0], "b": [3.0, 2.0]}

    client.delete_experiment(delivered["a"].info.experiment_id)
    resumed.end()
    assert tracking.deliver(root, uri(file)) == (1, 0)
    assert runs(file)[1]["b"].info.status == "FINISHED"


def test_what_mlflow_refuses_holds_up_nothing_else(migrated, caplog):
    root, file = migrated
    with tracking.run(root / "smoke", "linear", "odd", {}, {}) as record:
        record.metrics({"a name?": 1.0})
    with open(root / "smoke/tracking/train/a.jsonl", "a") as spool:
        spool.write("3\n{}\nnull\n")
    assert tracking.deliver(root, uri(file)) == (2, 1)
    assert tracking.deliver(root, uri(file)) == (0, 0)
    tracking.Run(root / "smoke", "linear", "odd", {}, {}).end()
    assert tracking.deliver(root, uri(file)) == (1, 0)
    assert runs(file)[1].keys() == {"a", "b", "odd"}
    assert any("odd.jsonl: refused by MLflow" in message for message in caplog.messages)
    assert sum("a damaged line is left out" in message for message in caplog.messages) == 3


@pytest.fixture
def stop_migration():
    """stop_migration(error): raised inside MLflow's migration, a table half copied."""
    hooks = []

    def begin(error):
        def hook(connection, cursor, statement, *_):
            if "INSERT INTO _alembic_tmp_" in statement:
                raise error

        sqlalchemy.event.listen(sqlalchemy.engine.Engine, "before_cursor_execute", hook)
        hooks.append(hook)

    def end():
        while hooks:
            sqlalchemy.event.remove(sqlalchemy.engine.Engine, "before_cursor_execute", hooks.pop())

    begin.end = end
    yield begin
    end()


def test_a_half_migrated_store_is_set_aside_and_made_anew(store, stop_migration, caplog):
    root, file = store
    stop_migration(sqlite3.OperationalError("database or disk is full"))
    for _ in range(2):  # the disk stays full: nothing piles up
        assert tracking.deliver(root, uri(file)) == (0, 2)
    assert "disk is full" in caplog.messages[0] and "2 runs wait" in caplog.messages[0]
    assert all("\n" not in message for message in caplog.messages)
    assert not list(file.parent.glob("mlflow.db.*"))
    with sqlite3.connect(file) as database:  # it is half migrated
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    assert "metrics" in tables and "traces" not in tables

    stop_migration.end()
    caplog.clear()
    assert tracking.deliver(root, uri(file)) == (2, 0)
    (line,) = caplog.messages
    assert "kept as mlflow.db.broken-1 and made anew" in line
    assert runs(file)[1].keys() == {"a", "b"}


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + bytes(500)])
def test_a_file_that_is_no_store_is_set_aside(store, content, caplog):
    root, file = store
    file.write_bytes(content)
    assert tracking.deliver(root, uri(file)) == (2, 0)
    assert file.with_name("mlflow.db.broken-1").read_bytes() == content
    assert len(caplog.messages) == 1


def test_a_store_of_others_is_left_alone(store, caplog):
    """With runs in it, or of another version of MLflow: its owner decides."""
    root, file = store
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE runs (run_uuid)")
        database.execute("INSERT INTO runs VALUES ('mine')")
    assert tracking.deliver(root, uri(file)) == (0, 2)
    assert "2 runs wait" in caplog.text
    with sqlite3.connect(file) as database:
        assert database.execute("SELECT * FROM runs").fetchall() == [("mine",)]


def test_a_database_server_that_is_away_is_asked_once(store):
    """MLflow tries ten times with growing pauses, 102 s in all."""
    root, file = store
    began = time.monotonic()
    assert tracking.deliver(root, f"sqlite:///{file.parent}/results/smoke") == (0, 2)
    assert time.monotonic() - began < 20


def test_the_record_of_delivery_names_the_store(migrated):
    root, file = migrated
    tracking.deliver(root, uri(file))
    record = json.loads((root / "smoke/tracking/train/a.delivered").read_text())
    experiment = MlflowClient(tracking_uri=uri(file)).get_experiment_by_name(opening.EXPERIMENT)
    assert record["store"] == experiment.tags[opening.ID_TAG]


def test_a_server_that_never_answers_holds_up_little(store, monkeypatch):
    """It accepts and is silent. A training spends at most a fiftieth of its time on it."""
    root, _ = store
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        courier = tracking.Courier(root, f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        courier.deliver()
        ended = time.monotonic()
    assert ended - began > 1
    assert courier.next - ended > 45 * (ended - began)


def test_a_folder_may_have_a_quote_in_its_name(tmp_path, monkeypatch, empty_store):
    folder = tmp_path / "it's"
    folder.mkdir()
    monkeypatch.chdir(folder)
    shutil.copy(empty_store, folder)
    for _ in range(2):  # the second run replaces the first one
        with tracking.run(folder / "results/smoke", "train", "a", {}, {}) as record:
            record.artifact(record.spool)
        assert tracking.deliver(folder / "results", uri(folder / "mlflow.db")) == (1, 0)
    assert tracking.find_runs(uri(folder / "mlflow.db"), [record.key]).keys() == {record.key}
