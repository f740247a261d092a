"""The runs above the runs: one for the pipeline, one for each backbone, and what they sum up.

A pipeline run is known by the name of its results folder ("laptop"), a backbone's by
"laptop/dinov2-r4-s0". Both show the paper's own quantities: a backbone's along training (the step
is the percent of it), the pipeline's along the number of registers (the step).
"""

import getpass
import time
from collections.abc import Mapping
from typing import Any

from registers.headlines import is_headline
from registers.settings.backbone_id import BackboneId
from registers.stores.about import backbone_of
from registers.stores.opening import Store

PARENT = "mlflow.parentRunId"
SUPERSEDED = "superseded"  # the tag of a run whose work was done again since
SHAPE = ("method", "size", "registers", "seed")  # what a backbone's run has as params
NOTES = {
    "pipeline": (
        "All that results/{subject} holds. The step of its metrics is the number of registers, so "
        "that *Model metrics* draws what registers change; its artifacts are the page "
        "(reports/{subject}/paper.html) and the figures."
    ),
    "backbone": (
        "{subject}: its training, its token bank and the questions asked of it are the runs below. "
        "The step of its metrics is the percent of training at which they were measured."
    ),
}


def parent_of(store: Store, tags: Mapping[str, str], start: Mapping[str, Any]) -> str:
    """Id of the run above one, which is made where there is none.

    tags: of the run below. start: its first event, whose time and params the parent may take over.
    """
    run, id = tags["scale"], _backbone(tags)
    pipeline = _find(store, run) or _make(store, run, run, "pipeline", {"scale": run}, start)
    if id is None:
        return pipeline
    key = f"{run}/{id.trained}"
    params = {name: start["params"][name] for name in SHAPE if name in start["params"]}
    params |= {"method": id.method, "registers": id.registers, "seed": id.seed}
    about = {PARENT: pipeline, "scale": run}
    return _find(store, key) or _make(store, key, str(id.trained), "backbone", about, start, params)


def sum_up(store: Store, tags: Mapping[str, str], values: Mapping[str, float], at: int) -> None:
    """Show a finished run's headlines at its backbone and at its pipeline. at: milliseconds."""
    from mlflow.entities import Metric

    run, id = tags["scale"], _backbone(tags)
    shown = {name: value for name, value in values.items() if is_headline(name)}
    if id is None or not shown:
        return
    to_backbone = [Metric(name, value, at, id.percent) for name, value in shown.items()]
    store.client.log_batch(_find(store, f"{run}/{id.trained}"), metrics=to_backbone)
    if id.percent == 100 and not id.noaa and not id.size:
        line = id.method if id.seed == 0 else f"{id.method} seed {id.seed}"
        to_pipeline = [
            Metric(f"{name} {line}", value, at, id.registers) for name, value in shown.items()
        ]
        store.client.log_batch(_find(store, run), metrics=to_pipeline)


def settle(store: Store, parents: set[str]) -> None:
    """Give the runs above the status of those below: running, failed or finished."""
    pipelines = {store.client.get_run(id).data.tags.get(PARENT, "") for id in parents} - {""}
    for parent in (*(parents - pipelines), *pipelines):  # a pipeline's follows from its backbones'
        query = f"tags.`{PARENT}` = '{parent}'"
        below = store.client.search_runs([store.experiment], query, max_results=1000)
        states = {run.info.status for run in below if SUPERSEDED not in run.data.tags}
        if "RUNNING" in states:
            store.client.update_run(parent, "RUNNING")
        else:
            end = max((run.info.end_time or 0 for run in below), default=0)
            status = "FAILED" if "FAILED" in states else "FINISHED"
            store.client.set_terminated(parent, status, end or int(1000 * time.time()))


def _backbone(tags: Mapping[str, str]) -> BackboneId | None:
    """The backbone under which a run is kept; the study's runs have no stages below them."""
    return None if tags["rule"] in ("draw", "study") else backbone_of(tags["subject"])


def _find(store: Store, key: str) -> str:
    """Id of the run above with a key; "" where there is none."""
    if key not in store.above:
        runs = store.client.search_runs([store.experiment], f"tags.key = '{key}'", max_results=1)
        if runs:
            store.above[key] = runs[0].info.run_id
    return store.above.get(key, "")


def _make(
    store: Store,
    key: str,
    subject: str,
    kind: str,
    tags: Mapping[str, str],
    start: Mapping[str, Any],
    params: Mapping[str, Any] | None = None,
) -> str:
    from mlflow.entities import Param

    about = {
        "key": key,
        "kind": kind,
        "mlflow.note.content": NOTES[kind].format(subject=subject),
        "mlflow.source.name": "registers",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": getpass.getuser(),
    }
    made = store.client.create_run(
        store.experiment, start_time=start["time"], tags=about | tags, run_name=subject
    )
    entries = [Param(name, str(value)) for name, value in (params or {}).items()]
    store.client.log_batch(made.info.run_id, params=entries)
    return made.info.run_id
