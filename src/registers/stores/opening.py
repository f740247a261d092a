"""Opening a store of MLflow, and making anew a SQLite file that was left half made."""

import logging
import os
import re
import sqlite3
import uuid
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from registers.stores.words import one_line

EXPERIMENT = "registers"  # pipeline runs, backbones, and what was done to them
DRAWINGS = "registers drawings"  # figures, tables and the page: no chart is of them
DESCRIPTIONS = {
    EXPERIMENT: (
        "Backbones without and with registers. A pipeline run holds its backbones, a backbone its "
        "training, its token bank and the questions asked of it; their main numbers stand at the "
        "backbone.\n\nTo compare r0 with r4, open a pipeline run's *Model metrics*, where the step "
        "is the number of registers, or tick two backbones and choose *Compare*."
    ),
    DRAWINGS: "What was drawn from the measurements; the figures also lie at the pipeline's run.",
}
ID_TAG = "registers.store"  # the tag of our experiment that holds the store's id
KIND_TAG = "mlflow.experimentKind"  # how MLflow's UI opens an experiment
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """MLflow at one address.

    experiment, drawings: ids of our experiments there. id: our own name of this very store.
    above: ids of the runs above others that one delivery has met, by key.
    """

    client: Any
    experiment: str
    drawings: str
    id: str
    above: dict[str, str] = field(default_factory=dict)

    def place(self, rule: str) -> str:
        """The experiment in which runs of a rule are kept."""
        return self.drawings if rule in ("draw", "report") else self.experiment


def connect(uri: str) -> Store:
    """The store at `uri`, with our experiment, which is made where there is none.

    A SQLite file that cannot be opened and holds no run was left by a job that was killed, or had a
    full disk, in MLflow's first migration: it is set aside, and the store made anew.
    """
    file = _sqlite_file(uri)
    if file is None or not file.is_file() or not file.stat().st_size:
        return _open(uri)
    try:
        if not _is_database(file):
            raise ConnectionError(f"{file} is no SQLite file")
        return _open(uri)
    except Exception as error:
        if _may_hold_runs(file):
            raise
        reason = one_line(error)
        aside = _set_aside(file)
    try:
        store = _open(uri)
    except Exception:
        aside.replace(file)  # the cause is not the file: a full disk
        raise
    message = "%s: half made or damaged (%s); kept as %s and made anew from the spools"
    log.warning(message, file, reason, aside.name)
    return store


def _open(uri: str) -> Store:
    # A server that is away is away: the spool keeps the numbers.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    if _sqlite_file(uri):  # no connection outlives a file that is replaced
        os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
    from mlflow.store.db import utils
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic", "sqlalchemy"):  # importing MLflow sets its level
        logging.getLogger(name).setLevel(logging.ERROR)
    utils.MAX_RETRY_COUNT = 1  # MLflow's own 15 would hold a training for an hour

    client = MlflowClient(tracking_uri=uri)
    experiment = _experiment(client, uri, EXPERIMENT)
    drawings = _experiment(client, uri, DRAWINGS)
    id = experiment.tags.get(ID_TAG)
    if id is None:
        id = uuid.uuid4().hex
        client.set_experiment_tag(experiment.experiment_id, ID_TAG, id)
    return Store(client, experiment.experiment_id, drawings.experiment_id, id)


def _experiment(client: Any, uri: str, name: str) -> Any:
    """An experiment of ours, made where there is none, and restored where it was deleted."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        experiment = client.get_experiment(client.create_experiment(name))
        _make_movable(uri, experiment.experiment_id)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    if KIND_TAG not in experiment.tags:  # a store of an earlier version has none
        tags = {KIND_TAG: "custom_model_development", "mlflow.note.content": DESCRIPTIONS[name]}
        for key, value in tags.items():
            client.set_experiment_tag(experiment.experiment_id, key, value)
    return experiment


def _make_movable(uri: str, experiment: str) -> None:
    """Let the artifacts of a new experiment lie beside a SQLite file that a relative URI names.

    MLflow writes the folder at hand in full, and no artifact is found once the project has moved;
    there is no call that would keep a path relative (`SqlAlchemyStore.create_experiment`).
    """
    file = _sqlite_file(uri)
    if file is None or file.is_absolute():
        return
    with closing(sqlite3.connect(file)) as database, database:
        location = (file.parent / "mlruns" / experiment).as_posix()
        database.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
            (location, experiment),
        )


def _sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite store; None for a server."""
    match = re.match(r"sqlite(?:\+\w+)?:///([^?]+)", uri)
    return Path(match[1]) if match else None


def _is_database(file: Path) -> bool:
    with open(file, "rb") as opened:
        return opened.read(16) == b"SQLite format 3\0"


def _may_hold_runs(file: Path) -> bool:
    """False where a SQLite file has no run for sure: damaged, never finished, or none at all."""
    try:
        with closing(sqlite3.connect(file)) as database:
            return database.execute("SELECT 1 FROM runs LIMIT 1").fetchone() is not None
    except sqlite3.OperationalError as error:  # locked, say
        return "no such table" not in str(error)
    except sqlite3.DatabaseError:
        return False


def _set_aside(file: Path) -> Path:
    names = (file.with_name(f"{file.name}.broken-{number}") for number in count(1))
    aside = next(name for name in names if not name.exists())
    for ending in ("-journal", "-wal", "-shm"):
        file.with_name(file.name + ending).unlink(missing_ok=True)
    return file.replace(aside)
