"""Tracking: numbers go to disk first, then to MLflow, whose stores stores.py opens.

A job appends events to a spool of its own, results/<run>/tracking/<rule>/<subject>.jsonl, and
`deliver` replays what MLflow does not have yet. Why MLflow is not called in every job (2 shared
cores, AMD EPYC, 2026-11-21, MLflow on SQLite):

- its client takes 2.0 to 2.8 s and 170 MB to import, and the first connection to a new store
  another 2 s; this module takes 0.15 s and 28 MB, a run with its metrics 9 ms. The scale smoke has
  95 jobs;
- parallel jobs that meet in a new SQLite store crash in its first migration (four at once do), so
  delivery holds one lock;
- a server that is away costs nothing but time: the spool keeps the numbers.

A run is known by its key, "<run>/<rule>/<subject>". When a rule runs again, its former MLflow run
is replaced. A store is known by an id of its own, so that one that was deleted, or another one, is
filled from the spools.
"""

import fcntl
import getpass
import json
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from registers.files import write_json
from registers.layout import Layout
from registers.measurements import Measurement, code_version
from registers.stores import Store, connect, masked, one_line

REFUSALS = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # of what it is asked to write
BATCH = 1000  # metrics that MLflow takes in one request
log = logging.getLogger(__name__)


class Run:
    """One training or evaluation as MLflow will show it. Each call appends a line to a file."""

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
        """Begin a run, or continue it.

        folder: results/<run>.
        rule, subject: what was done to what, e.g. "linear" and "dinov2-r4-s0".
        resume: continue the spool of a job that was interrupted.
        began: when the work began, in seconds since the epoch, if that was before this call.
        """
        run = Path(folder).name
        self.key = f"{run}/{rule}/{subject}"
        self.spool = Layout(Path(folder)).tracking / rule / f"{subject}.jsonl"
        self.spool.parent.mkdir(parents=True, exist_ok=True)
        if resume and self.spool.exists():
            self._add(event="resume")
            return
        with _locked(self.spool):  # a new start of the same key: deliver() replaces the MLflow run
            self.spool.write_text("")
            _delivered(self.spool).unlink(missing_ok=True)
        own = {
            "rule": rule,
            "subject": subject,
            "key": self.key,
            "git_commit": code_version(),
            "scale": run,
        }
        self._add(
            event="start",
            name=f"{rule} {subject}",
            tags=own | tags,
            params=params,
            time=int(1000 * (began or time.time())),
        )

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        self._add(event="metrics", values={k: float(v) for k, v in values.items()}, step=step)

    def artifact(self, path: str | Path) -> None:
        self._add(event="artifact", path=str(path))

    def measurements(self, rows: Iterable[Measurement]) -> None:
        """The rows of a question as metrics, so that MLflow can compare them.

        Only rows with a value, without a coordinate and without a layer: those are the main ones.
        """
        values = {
            _metric_name(row): row.value
            for row in rows
            if row.value is not None and row.at is None and row.layer is None
        }
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
    **options: Any,
):
    """A `Run` that ends as finished, or as failed when an exception passes."""
    record = Run(folder, rule, subject, tags, params, **options)
    try:
        yield record
    except BaseException:
        record.end("FAILED")
        raise
    record.end()


def deliver(root: str | Path, uri: str, wait: float | None = None) -> tuple[int, int]:
    """Replay to MLflow what it does not have yet: (runs delivered, runs still waiting).

    root: the folder of all results. uri: MLflow's tracking URI.
    wait: seconds to wait for another process that is delivering at the moment (it will take our
        numbers along on its next round); None waits without end.

    Raises nothing when the store cannot be reached: one warning, and the spools stay as they are.
    """
    root = Path(root)
    spools = sorted(root.glob("**/tracking/*/*.jsonl"))
    pending = spools
    if not spools:
        return 0, 0
    try:
        with _locked(root / "mlflow", wait):
            store = connect(uri)
            pending = [spool for spool in spools if _is_waiting(spool, store.id)]
            refused = sum(not _replay(store, spool) for spool in pending)
        return len(pending) - refused, refused
    except TimeoutError:
        return 0, len(pending)
    except Exception as error:  # whatever a store may raise: tracking never ends a training
        _warn(uri, error, f"; {len(pending)} runs wait in {root}")
        return 0, len(pending)


class Courier:
    """Delivers while a long job runs: the less often, the longer it takes."""

    PAUSE = 20  # seconds between deliveries
    SHARE = 50  # or so many times what the last one took: a silent server holds up a job little

    def __init__(self, root: str | Path, uri: str) -> None:
        self.root = root
        self.uri = uri
        self.next = time.monotonic() + self.PAUSE

    def deliver_now_and_then(self) -> None:
        if time.monotonic() > self.next:
            self.deliver()

    def deliver(self) -> None:
        began = time.monotonic()
        deliver(self.root, self.uri, wait=0)
        now = time.monotonic()
        self.next = now + max(self.PAUSE, self.SHARE * (now - began))


def find_runs(uri: str, keys: list[str]) -> dict[str, tuple[str, str]]:
    """(experiment id, run id) by key, for the keys that MLflow knows.

    Empty, with a warning, when MLflow cannot be reached.
    """
    runs: dict[str, tuple[str, str]] = {}
    token = None
    try:
        store = connect(uri)
        while True:
            page = store.client.search_runs([store.experiment], max_results=1000, page_token=token)
            for run in page:
                if "key" in run.data.tags:
                    runs[run.data.tags["key"]] = (store.experiment, run.info.run_id)
            token = page.token
            if not token:
                return {key: runs[key] for key in keys if key in runs}
    except Exception as error:  # as in deliver: a report is written without links, too
        _warn(uri, error)
        return {}


# --- the spool and what of it was delivered -------------------------------------------------------


@dataclass
class _Delivery:
    """How far a spool was delivered (bytes), into which store and MLflow run (ids; "": none)."""

    bytes: int = 0
    run: str = ""
    store: str = ""


def _delivered(spool: Path) -> Path:
    return spool.with_suffix(".delivered")


def _read_delivery(spool: Path, store: str) -> _Delivery:
    """What was delivered of a spool to this store. A missing or damaged record counts as nothing.

    Delivering twice does no harm: the start of a spool replaces the former MLflow run of its key.
    """
    nothing = _Delivery(store=store)
    try:
        record = json.loads(_delivered(spool).read_bytes())
        done = _Delivery(int(record["bytes"]), str(record["run"]), str(record["store"]))
    except (OSError, ValueError, TypeError, KeyError):
        return nothing
    possible = 0 < done.bytes <= spool.stat().st_size and done.run
    return done if possible and done.store == store else nothing


def _is_waiting(spool: Path, store: str) -> bool:
    return _read_delivery(spool, store).bytes < spool.stat().st_size


def _replay(store: Store, spool: Path) -> bool:
    """Deliver the whole lines of a spool that MLflow does not have yet; whether it took them.

    What it refuses in one spool does not hold up the others, and is tried again once there is more.
    Raises what a store raises that is away.
    """
    from mlflow.exceptions import MlflowException

    with _locked(spool):
        done = _read_delivery(spool, store.id)
        try:
            try:
                _replay_from(store, spool, done)
            except MlflowException as error:
                if not done.bytes or error.error_code not in REFUSALS:
                    raise
                _replay_from(store, spool, _Delivery(store=store.id))  # its run was deleted
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            log.warning("%s: refused by MLflow (%s)", spool, one_line(error))
            refused = _Delivery(spool.stat().st_size, "refused", store.id)
            write_json(_delivered(spool), asdict(refused))
            return False
    return True


def _replay_from(store: Store, spool: Path, done: _Delivery) -> None:
    with open(spool, "rb") as file:
        file.seek(done.bytes)
        content = file.read()
    lines = content[: content.rfind(b"\n") + 1]  # the last line may be half written
    metrics = []
    run = done.run
    for event in _events(lines, spool):
        if event["event"] == "start":
            run = _start(store, event)
        elif event["event"] == "metrics":
            metrics += _metrics(event)
        else:
            _apply(store.client, run, event)
    for start in range(0, len(metrics), BATCH):
        store.client.log_batch(run, metrics=metrics[start : start + BATCH])
    whole = _Delivery(done.bytes + len(lines), run, store.id)
    write_json(_delivered(spool), asdict(whole))


def _events(lines: bytes, spool: Path) -> Iterator[dict[str, Any]]:
    for line in lines.splitlines():
        try:
            event = json.loads(line)
        except ValueError:  # half a line, and behind it the first of a job that continued
            event = None
        if isinstance(event, dict) and "event" in event:
            yield event
        else:
            log.warning("%s: a damaged line is left out", spool)


@contextmanager
def _locked(path: Path, wait: float | None = None):
    """An exclusive lock between processes, kept in `path`.lock.

    wait: seconds; None waits without end. Raises TimeoutError after them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "w") as file:
        if wait is None:
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            _lock_within(file, wait, path)
        yield


def _lock_within(file, seconds: float, path: Path) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise TimeoutError(path) from None
            time.sleep(0.05)


# --- MLflow ---------------------------------------------------------------------------------------


def _start(store: Store, event: dict[str, Any]) -> str:
    """Begin an MLflow run, in place of a former one of the same key. Returns its id."""
    from mlflow.entities import Param

    client = store.client
    for former in client.search_runs([store.experiment], f"tags.key = '{event['tags']['key']}'"):
        client.delete_run(former.info.run_id)
    tags = {name: str(value) for name, value in event["tags"].items()}
    started = client.create_run(
        store.experiment,
        start_time=event["time"],
        tags=tags | {"mlflow.user": getpass.getuser()},
        run_name=event["name"],
    )
    params = [Param(name, str(value)) for name, value in event["params"].items()]
    client.log_batch(started.info.run_id, params=params)
    return started.info.run_id


def _metrics(event: dict[str, Any]) -> list:
    from mlflow.entities import Metric

    return [
        Metric(name, value, event["time"], event["step"]) for name, value in event["values"].items()
    ]


def _apply(client, run: str, event: dict[str, Any]) -> None:
    from mlflow.entities import RunTag

    match event["event"]:
        case "resume":
            client.set_terminated(run, "RUNNING")
            client.log_batch(run, tags=[RunTag("resumed", "true")])
        case "artifact":
            if Path(event["path"]).exists():
                client.log_artifact(run, event["path"])
        case "end":
            client.set_terminated(run, event["status"], event["time"])


# --- in words -------------------------------------------------------------------------------------


def _metric_name(row: Measurement) -> str:
    """E.g. "segmentation/iou/world"; MLflow allows letters, digits, blanks and a few signs."""
    parts = (row.question, row.token, row.variant, row.metric, row.data)
    name = "/".join(part for part in parts if part)
    return "".join(c if c.isalnum() or c in "-_./ " else "_" for c in name)


def _warn(uri: str, error: BaseException, consequence: str = "") -> None:
    """One line in the log, without the URI's password."""
    reason = f"{type(error).__name__}: {error}".replace(uri, masked(uri))
    reason = one_line(reason)
    log.warning("MLflow at %s cannot be reached (%s)%s", masked(uri), reason, consequence)
