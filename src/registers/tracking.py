"""Tracking: numbers go to disk first, and from there to MLflow, which stores/ alone knows.

A job appends events to a spool of its own, results/<run>/tracking/<rule>/<subject>.jsonl, and
`deliver` replays what MLflow does not have yet. Why MLflow is not called in every job (2 shared
cores, AMD EPYC, 2026-11-21, MLflow on SQLite):

- its client takes 2.0 to 2.8 s and 170 MB to import, and the first connection to a new store
  another 2 s; this module takes 0.15 s and 28 MB. The scale smoke has 95 jobs;
- parallel jobs that meet in a new SQLite store crash in its first migration (four at once do), so
  delivery holds one lock;
- a server that is away costs nothing but time: the spool keeps the numbers.

A run is known by its key, "<run>/<rule>/<subject>". When a rule runs again, its spool goes on with
another start, and the former MLflow run stays, as superseded. A store is known by an id of its own,
so that one that was deleted, or another one, is filled from the spools.
"""

import json
import logging
import resource
import sys
import time
import uuid
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from registers import headlines
from registers.layout import Layout
from registers.measurements import Measurement, code_version
from registers.questions import QUESTIONS
from registers.registry import METHODS
from registers.stores.opening import connect
from registers.stores.spools import began as began_at
from registers.stores.spools import is_waiting, locked
from registers.stores.words import masked, one_line

UI = "http://127.0.0.1:5000"  # where `registers ui` shows a store that is a file
TRAINING = "workflowType=machine_learning"  # how an address asks the UI for its training pages
BY_NAME = "orderByKey=attributes.run_name&orderByAsc=true"  # the run, not its parent to unfold
log = logging.getLogger(__name__)


class Run:
    """One training or evaluation as MLflow will show it. Each call appends a line to a file."""

    SYSTEM_PAUSE = 10  # seconds between samples of what the process uses

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
        resume: continue the run of a job that was interrupted.
        began: when the work began, in seconds since the epoch, if that was before this call.
        """
        run = Path(folder).name
        self.key = f"{run}/{rule}/{subject}"
        self.spool = Layout(Path(folder)).tracking / rule / f"{subject}.jsonl"
        self.spool.parent.mkdir(parents=True, exist_ok=True)
        self._usage = _Usage(began)
        _end_line(self.spool)
        if resume and self.spool.exists():
            self._add(event="resume")
            return
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
            attempt=uuid.uuid4().hex,
            tags=own | tags,
            params=params,
            inputs=_inputs(Path(folder), rule, tags),
            time=int(1000 * (began or time.time())),
        )

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        self._add(event="metrics", values={k: float(v) for k, v in values.items()}, step=step)
        if time.monotonic() > self._usage.at + self.SYSTEM_PAUSE:
            self._system(step)

    def artifact(self, path: str | Path) -> None:
        self._add(event="artifact", path=str(path))

    def measurements(self, rows: Iterable[Measurement]) -> None:
        """The rows of a question that stand for it, as metrics that MLflow can compare."""
        by_step: dict[int, dict[str, float]] = {}
        for (name, step), value in headlines.metrics(rows).items():
            by_step.setdefault(step, {})[name] = value
        for step, values in by_step.items():
            self.metrics(values, step)

    def end(self, status: str = "FINISHED") -> None:
        self._system(0)
        self._add(event="end", status=status)

    def _system(self, step: int) -> None:
        self._add(event="metrics", values=self._usage.sample(), step=step)

    def _add(self, **event: Any) -> None:
        event.setdefault("time", int(time.time() * 1000))
        with open(self.spool, "a") as file:
            file.write(json.dumps(event) + "\n")


class _Usage:
    """What this process uses of the machine, under the names that MLflow's UI shows as such."""

    def __init__(self, began: float | None) -> None:
        """began: when the process did, in seconds since the epoch; None for now."""
        self.at = time.monotonic() - (time.time() - began if began else 0)
        self.cpu = 0.0 if began else time.process_time()

    def sample(self) -> dict[str, float]:
        """Since the last sample: CPU in percent of one core; the most memory so far, in MB."""
        now, cpu = time.monotonic(), time.process_time()
        share = (cpu - self.cpu) / max(now - self.at, 1e-3)
        self.at, self.cpu = now, cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        bytes = peak if sys.platform == "darwin" else 1024 * peak
        values = {
            "system/process_cpu_percentage": 100 * share,
            "system/process_peak_memory_megabytes": bytes / 1e6,
        }
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            values["system/gpu_peak_memory_megabytes"] = torch.cuda.max_memory_allocated() / 1e6
        return values


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


def _end_line(spool: Path) -> None:
    """End the line that a killed job left half written, so that the next one stands alone."""
    if spool.exists() and not spool.read_bytes().endswith(b"\n") and spool.stat().st_size:
        with open(spool, "ab") as file:
            file.write(b"\n")


def _inputs(folder: Path, rule: str, tags: dict[str, Any]) -> list[dict[str, Any]]:
    """The data sets of a run as its manifest has them, by name, digest, place and size.

    A training sees "train"; a question "val", and what it fits on "train". None where the data set
    was not listed, as in a test.
    """
    if rule == "train":
        entry = METHODS.get(str(tags.get("method")))
        role, splits = (entry.role if entry else ""), ("train",)
    else:
        question = QUESTIONS.get(rule)
        on_bank = rule == "tokens" or (question is not None and question.reads == "bank")
        role = question.role if question else ""
        splits = ("train", "val") if role else ("val",)
        role = role or ("eval" if on_bank else "")
    manifest = Layout(folder).manifest(role)
    if not role or not manifest.is_file():
        return []
    return [
        {
            "name": f"{about['spec']} {about['split']}",
            "digest": about["fingerprint"][:36],  # as much as MLflow keeps
            "source": f"{manifest}#{name}",
            "context": "training" if about["split"] == "train" else "evaluation",
            "profile": {"samples": about["samples"]},
        }
        for name, about in json.loads(manifest.read_bytes()).items()
        if about["split"] in splits
    ]


# --- delivery -------------------------------------------------------------------------------------


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
        with locked(root / "mlflow", wait):
            store = connect(uri)
            pending = [spool for spool in spools if is_waiting(spool, store.id)]
            return _deliver(store, pending)
    except TimeoutError:
        return 0, len(pending)
    except Exception as error:  # whatever a store may raise: tracking never ends a training
        _warn(uri, error, f"; {len(pending)} runs wait in {root}")
        return 0, len(pending)


def _deliver(store, spools: list[Path]) -> tuple[int, int]:
    from registers.stores import replay, tree

    # trainings first among equals: what is asked of a checkpoint names its logged model
    ordered = sorted(spools, key=lambda spool: (began_at(spool), spool.parent.name != "train"))
    results = [replay.replay(store, spool) for spool in ordered]
    tree.settle(store, {above for _, above in results if above})
    done = sum(taken for taken, _ in results)
    return done, len(results) - done


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


# --- finding runs ---------------------------------------------------------------------------------


def find_runs(uri: str, keys: list[str]) -> dict[str, tuple[str, str]]:
    """(experiment id, run id) by key, for the keys that MLflow knows; the latest run of each.

    Empty, with a warning, when MLflow cannot be reached.
    """
    runs: dict[str, tuple[str, str]] = {}
    try:
        store = connect(uri)
        for experiment in (store.experiment, store.drawings):
            token = None
            while True:
                page = store.client.search_runs(
                    [experiment], max_results=1000, page_token=token
                )  # newest first
                for run in page:
                    if "key" in run.data.tags:
                        runs.setdefault(run.data.tags["key"], (experiment, run.info.run_id))
                token = page.token
                if not token:
                    break
        return {key: runs[key] for key in keys if key in runs}
    except Exception as error:  # as in deliver: a report is written without links, too
        _warn(uri, error)
        return {}


def links(uri: str, keys: Iterable[str]) -> dict[str, str]:
    """Where MLflow's UI shows a run, by key: the address asks for the key, not for a run's id.

    So it stays right when a rule ran again, and in a clone whose store was filled from the spools.
    """
    try:
        store = connect(uri)
        places = {key: store.place(key.split("/")[1]) for key in keys}
    except Exception as error:  # as in deliver
        _warn(uri, error)
        return {}
    ui = uri.rstrip("/") if uri.startswith(("http://", "https://")) else UI
    return {
        key: f"{masked(ui)}/#/experiments/{place}/runs?{TRAINING}&{BY_NAME}&searchFilter="
        + quote(f"tags.key = '{key}'", safe="")
        for key, place in places.items()
    }


def _warn(uri: str, error: BaseException, consequence: str = "") -> None:
    """One line in the log, without the URI's password."""
    reason = f"{type(error).__name__}: {error}".replace(uri, masked(uri))
    reason = one_line(reason)
    log.warning("MLflow at %s cannot be reached (%s)%s", masked(uri), reason, consequence)
