"""Tracking: the only module that knows MLflow. Numbers are written to disk first and delivered from there.

A job appends events to its own spool, results/<run>/tracking/<rule>/<subject>.jsonl; `deliver` replays what MLflow has not yet.
So a job never waits for MLflow, a server that is away loses nothing, and parallel jobs never meet in the store: delivery
holds one lock (which also keeps the first migration of a new SQLite store to one process; four at once crash in it).

A run is known by its key, "<run>/<rule>/<subject>". When a rule runs again, its former MLflow run is replaced.
"""

import fcntl
import getpass
import json
import logging
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from registers.measurements import code_version

EXPERIMENT = "registers"
log = logging.getLogger(__name__)


class Run:
    """One training or evaluation as MLflow will show it. Cheap: every call appends a line to a file."""

    def __init__(
        self,
        folder: str | Path,
        rule: str,
        subject: str,
        tags: dict[str, Any],
        params: dict[str, Any],
        *,
        resume: bool = False,
        began: float | None = None,
    ) -> None:
        """folder: results/<run>. began: when the work began, in seconds since the epoch, if that was before this call."""
        self.key = f"{Path(folder).name}/{rule}/{subject}"
        self.spool = Path(folder) / "tracking" / rule / f"{subject}.jsonl"
        self.spool.parent.mkdir(parents=True, exist_ok=True)
        if not (resume and self.spool.exists()):
            with _locked(
                self.spool
            ):  # a new life of the same key: deliver() replaces the old MLflow run
                self.spool.write_text("")
                self._delivered.unlink(missing_ok=True)
            tags = {
                "rule": rule,
                "subject": subject,
                "key": self.key,
                "git_commit": code_version(),
                "scale": Path(folder).name,
                **tags,
            }
            self._add(
                event="start",
                name=f"{rule} {subject}",
                tags=tags,
                params=params,
                time=int(1000 * (began or time.time())),
            )
        else:
            self._add(event="resume")

    @property
    def _delivered(self) -> Path:
        return self.spool.with_suffix(".delivered")

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        self._add(event="metrics", values={k: float(v) for k, v in values.items()}, step=step)

    def artifact(self, path: str | Path) -> None:
        self._add(event="artifact", path=str(path))

    def measurements(self, rows: list) -> None:
        """The rows of a question as metrics (those with a value and no coordinate), so that MLflow can compare them."""
        values = {}
        for row in rows:
            if row.value is not None and row.x is None and row.layer is None:
                name = "/".join(
                    part for part in (row.question, row.token, row.metric, row.data) if part
                )
                values[_plain(name)] = row.value
        if values:
            self.metrics(values)

    def end(self, status: str = "FINISHED") -> None:
        self._add(event="end", status=status)

    def _add(self, **event: Any) -> None:
        event.setdefault("time", int(time.time() * 1000))
        with open(self.spool, "a") as file:
            file.write(json.dumps(event) + "\n")


@contextmanager
def run(
    folder: str | Path,
    rule: str,
    subject: str,
    tags: dict[str, Any],
    params: dict[str, Any],
    **choices: Any,
):
    """A `Run` that is closed as finished, or as failed when an exception passes."""
    record = Run(folder, rule, subject, tags, params, **choices)
    try:
        yield record
    except BaseException:
        record.end("FAILED")
        raise
    record.end()


def deliver(root: str | Path, uri: str, wait: float | None = None) -> tuple[int, int]:
    """Replay to MLflow what it has not yet of all spools below `root`; returns (runs delivered, runs still waiting).

    Raises nothing when the store cannot be reached: it says so once and leaves the spools as they are. wait: seconds to wait
    for another process that is delivering at the moment (it will take ours along on its next round); None waits for ever.
    """
    root = Path(root)
    pending = [s for s in sorted(root.glob("**/tracking/*/*.jsonl")) if _waiting(s)]
    if not pending:
        return 0, 0
    try:
        with _locked(root / "mlflow", wait):
            client, experiment = _connect(uri)
            for spool in pending:
                with _locked(spool):
                    _replay(client, experiment, spool)
        return len(pending), 0
    except TimeoutError:
        return 0, len(pending)
    except (
        Exception
    ) as error:  # whatever a store or server may throw: tracking never ends a training
        log.warning(
            "MLflow at %s cannot be reached (%s); %d runs wait in %s",
            uri,
            _one_line(error),
            len(pending),
            root,
        )
        return 0, len(pending)


def find_runs(uri: str, keys: list[str]) -> dict[str, tuple[str, str]]:
    """(experiment id, run id) by key, for the keys that MLflow knows; {} when it cannot be reached."""
    try:
        client, experiment = _connect(uri)
        found: dict[str, tuple[str, str]] = {}
        token = None
        while True:
            page = client.search_runs([experiment], max_results=1000, page_token=token)
            found |= {
                r.data.tags["key"]: (experiment, r.info.run_id)
                for r in page
                if "key" in r.data.tags
            }
            token = page.token
            if not token:
                return {k: found[k] for k in keys if k in found}
    except Exception as error:
        log.warning("MLflow at %s cannot be reached (%s)", uri, _one_line(error))
        return {}


# --- inside -------------------------------------------------------------------------------------------------------------


def _waiting(spool: Path) -> bool:
    done = spool.with_suffix(".delivered")
    return not done.exists() or json.loads(done.read_text())["bytes"] < spool.stat().st_size


def _connect(uri: str):
    os.environ.setdefault(
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"
    )  # a server that is away is away: the spool keeps the numbers
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("mlflow", "alembic", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    known = client.get_experiment_by_name(EXPERIMENT)
    return client, known.experiment_id if known else client.create_experiment(EXPERIMENT)


def _replay(client, experiment: str, spool: Path) -> None:
    from mlflow.entities import Metric, Param, RunTag

    done_file = spool.with_suffix(".delivered")
    done = json.loads(done_file.read_text()) if done_file.exists() else {"bytes": 0, "run": ""}
    with open(spool, "rb") as file:
        file.seek(done["bytes"])
        text = file.read()
    text = text[: text.rfind(b"\n") + 1]  # a line may be half written
    metrics: list[Metric] = []
    for line in text.decode().splitlines():
        event = json.loads(line)
        match event["event"]:
            case "start":
                for old in client.search_runs([experiment], f"tags.key = '{event['tags']['key']}'"):
                    client.delete_run(old.info.run_id)
                tags = {k: str(v) for k, v in event["tags"].items()} | {
                    "mlflow.user": getpass.getuser()
                }
                started = client.create_run(
                    experiment, start_time=event["time"], tags=tags, run_name=event["name"]
                )
                done["run"] = started.info.run_id
                params = [Param(k, str(v)) for k, v in event["params"].items()]
                client.log_batch(done["run"], params=params)
            case "resume":
                client.set_terminated(done["run"], "RUNNING")
                client.log_batch(done["run"], tags=[RunTag("resumed", "true")])
            case "metrics":
                metrics += [
                    Metric(k, v, event["time"], event["step"]) for k, v in event["values"].items()
                ]
            case "artifact":
                if Path(event["path"]).exists():
                    client.log_artifact(done["run"], event["path"])
            case "end":
                client.set_terminated(done["run"], event["status"], event["time"])
    for start in range(0, len(metrics), 1000):  # MLflow takes at most 1000 a batch
        client.log_batch(done["run"], metrics=metrics[start : start + 1000])
    done["bytes"] += len(text)
    partial = done_file.with_suffix(".partial")
    partial.write_text(json.dumps(done))
    os.replace(partial, done_file)


@contextmanager
def _locked(path: Path, wait: float | None = None):
    """An exclusive lock between processes, kept in `path`.lock. Raises TimeoutError after `wait` seconds (None: never)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "w") as file:
        if wait is None:
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            give_up = time.monotonic() + wait
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= give_up:
                        raise TimeoutError(path) from None
                    time.sleep(0.05)
        yield


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_./ " else "_" for c in text)


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
