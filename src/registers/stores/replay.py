"""Replaying a spool into MLflow: each start is a run, below its backbone and its pipeline."""

import getpass
import json
import logging
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from registers.stores import about, checkpoints, tree
from registers.stores.opening import Store
from registers.stores.spools import (
    Delivery,
    events,
    locked,
    read_delivery,
    whole_lines,
    write_delivery,
)
from registers.stores.words import one_line

REFUSALS = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # of what it is asked to write
ABOVE = "above"  # the tag that holds the id of the run above, in another experiment too
REFUSED = "refused"  # in place of the id of a run that MLflow did not take
BATCH = 1000  # metrics that MLflow takes in one request
log = logging.getLogger(__name__)


def replay(store: Store, spool: Path) -> tuple[bool, str]:
    """Deliver what MLflow does not have yet of a spool: (whether it took it, id of the run above).

    What it refuses in one spool does not hold up the others, and is tried again once there is more.
    Raises what a store raises that is away.
    """
    from mlflow.exceptions import MlflowException

    with locked(spool):
        done = read_delivery(spool, store.id)
        try:
            try:
                above = _replay_from(store, spool, done)
            except MlflowException as error:
                if not done.bytes or error.error_code not in REFUSALS:
                    raise
                above = _replay_from(store, spool, Delivery(store=store.id))  # its run was deleted
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            log.warning("%s: refused by MLflow (%s)", spool, one_line(error))
            write_delivery(spool, store.id, REFUSED, spool.stat().st_size)
            return False, ""
    return True, above


class _Replayed:
    """The run in MLflow that lines of a spool are about.

    is_last: whether no later start follows, so that the files on disk are this run's.
    """

    def __init__(self, store: Store, run: str, tags: Mapping[str, str], above: str) -> None:
        self.store = store
        self.run = run
        self.tags = tags
        self.above = above
        self.is_last = True
        self.model = checkpoints.find_model(store, tags["scale"], tags["subject"])
        if tags["rule"] == "train":
            self.model = None  # a training's losses belong to no checkpoint of before

    @property
    def data(self) -> tuple[str | None, str | None]:
        """Name and digest of the data set that its numbers are of, where there is exactly one."""
        inputs = json.loads(self.tags.get("inputs", "[]"))
        sets = [one for one in inputs if one["context"] == "evaluation"]
        return (sets[0]["name"], sets[0]["digest"]) if len(sets) == 1 else (None, None)


def _replay_from(store: Store, spool: Path, done: Delivery) -> str:
    """Replay the lines behind what is done; returns the id of the run above."""
    if done.run == REFUSED and not any(e["event"] == "start" for e in events(spool, done.bytes)):
        done = Delivery(store=store.id)  # more of a run that was refused: tried again as a whole
    size = done.bytes + len(whole_lines(spool, done.bytes))
    lines = list(events(spool, done.bytes))
    last = max((at for at, event in enumerate(lines) if event["event"] == "start"), default=-1)
    replayed = _continued(store, done.run) if done.run not in ("", REFUSED) else None
    metrics: list[dict[str, Any]] = []
    for at, event in enumerate(lines):
        if event["event"] == "start":
            _log_metrics(replayed, metrics)
            metrics = []
            replayed = _start(store, event)
        elif replayed is None:
            continue  # of a run whose start was lost
        elif event["event"] == "metrics":
            metrics.append(event)
        else:
            replayed.is_last = at > last
            _log_metrics(replayed, metrics)
            metrics = []
            _apply(replayed, event)
    _log_metrics(replayed, metrics)
    if replayed is None:
        return ""
    write_delivery(spool, store.id, replayed.run, size)
    return replayed.above


def _continued(store: Store, run: str) -> _Replayed:
    """A run that MLflow has the first part of."""
    tags = store.client.get_run(run).data.tags
    return _Replayed(store, run, tags, tags[ABOVE])


# --- beginning ------------------------------------------------------------------------------------


def _start(store: Store, event: Mapping[str, Any]) -> _Replayed:
    """Begin an MLflow run. A former one of the same key stays, and says that it was superseded."""
    from mlflow.entities import Param

    tags = {name: str(value) for name, value in event["tags"].items()}
    place = store.place(tags["rule"])
    _supersede(store, place, tags["key"], str(event.get("attempt", event["time"])))
    above = tree.parent_of(store, tags, event)
    own = {
        "attempt": str(event.get("attempt", event["time"])),
        ABOVE: above,
        "inputs": json.dumps(event.get("inputs", [])),
        "mlflow.note.content": about.description(tags),
        "mlflow.source.name": about.command(tags),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": event.get("commit") or tags.get("git_commit", "").rstrip("+"),
        "mlflow.user": getpass.getuser(),
    }
    if place == store.experiment:
        own[tree.PARENT] = above
    started = store.client.create_run(
        place, start_time=event["time"], tags=tags | own, run_name=event["name"]
    )
    run = started.info.run_id
    id = about.backbone_of(tags["subject"])
    shape = {name: getattr(id, name) for name in ("method", "registers", "seed")} if id else {}
    params = [Param(name, str(value)) for name, value in (shape | event["params"]).items()]
    store.client.log_batch(run, params=params)
    replayed = _Replayed(store, run, tags | own, above)
    _log_inputs(replayed, event.get("inputs", []))
    return replayed


def _supersede(store: Store, experiment: str, key: str, attempt: str) -> None:
    """Mark former runs of a key; what this very attempt left of an earlier delivery goes."""
    for former in store.client.search_runs([experiment], f"tags.key = '{key}'"):
        if former.data.tags.get("attempt") == attempt:
            checkpoints.forget_models(store, former.info.run_id)
            store.client.delete_run(former.info.run_id)
        elif tree.SUPERSEDED not in former.data.tags:
            began = datetime.fromtimestamp(former.info.start_time / 1000)
            name = f"{former.info.run_name} (superseded, of {began:%Y-%m-%d %H:%M})"
            store.client.set_tag(former.info.run_id, tree.SUPERSEDED, "true")
            store.client.update_run(former.info.run_id, name=name)


def _log_inputs(replayed: _Replayed, inputs: list[Mapping[str, str]]) -> None:
    """Data sets, with their digests, and the checkpoint that a question was asked of."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput

    sets = [
        DatasetInput(
            Dataset(
                one["name"],
                one["digest"],
                source_type="local",
                source=json.dumps({"uri": one["source"]}),
                profile=json.dumps(one["profile"]),
            ),
            [InputTag("mlflow.data.context", one["context"])],
        )
        for one in inputs
    ]
    models = [LoggedModelInput(replayed.model)] if replayed.model else []
    if sets or models:
        replayed.store.client.log_inputs(replayed.run, datasets=sets, models=models)


# --- going on -------------------------------------------------------------------------------------


def _log_metrics(replayed: _Replayed | None, lines: list[dict[str, Any]]) -> None:
    """Log metrics; those of a question also at the checkpoint that it was asked of."""
    from mlflow.entities import Metric

    if replayed is None or not lines:
        return
    name, digest = replayed.data
    of_model = dict(model_id=replayed.model, dataset_name=name, dataset_digest=digest)
    metrics = [
        Metric(
            key,
            value,
            event["time"],
            event["step"],
            **(of_model if replayed.model and not key.startswith("system/") else {}),
        )
        for event in lines
        for key, value in event["values"].items()
    ]
    for start in range(0, len(metrics), BATCH):
        replayed.store.client.log_batch(replayed.run, metrics=metrics[start : start + BATCH])


def _apply(replayed: _Replayed, event: Mapping[str, Any]) -> None:
    client, run = replayed.store.client, replayed.run
    match event["event"]:
        case "resume":
            client.update_run(run, "RUNNING")
            client.set_tag(run, "resumed", "true")
        case "artifact":
            path = Path(event["path"])
            if replayed.is_last and path.exists():
                _log_artifact(replayed, path)
        case "end":
            client.set_terminated(run, event["status"], event["time"])
            if event["status"] == "FINISHED" and replayed.is_last:
                values = client.get_run(run).data.metrics
                tree.sum_up(replayed.store, replayed.tags, values, event["time"])


def _log_artifact(replayed: _Replayed, path: Path) -> None:
    """Log a file at its run; pictures and the page at the pipeline's; a card as logged models."""
    client, rule = replayed.store.client, replayed.tags["rule"]
    if rule == "report":
        client.log_artifact(replayed.above, str(path))
        return
    client.log_artifact(replayed.run, str(path))
    if rule == "draw" and path.suffix == ".png":
        client.log_artifact(replayed.above, str(path), path.parent.name)
    if rule == "train" and path.name == "last.json":
        checkpoints.log_models(replayed.store, replayed.run, replayed.tags, path.parent)
