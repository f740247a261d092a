"""Checkpoints as MLflow's logged models: found by name, loadable, and without a copy of weights.

A logged model's own file names the weights, relative to the project, and their digest;
`mlflow.pyfunc.load_model("models:/ID")`, called in the project's folder, loads them from there
(`registers.models.as_pyfunc`).
"""

import json
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from registers.files import write_json, write_text
from registers.stores.opening import Store

LOADER = "registers.models.as_pyfunc"
POINTER = "checkpoint.json"  # the file of a logged model that says where the weights lie


def log_models(store: Store, run: str, tags: Mapping[str, str], folder: Path) -> None:
    """Log each checkpoint of a training that lies in `folder`: at its end and on the way."""
    from mlflow.entities import LoggedModelOutput

    outputs = []
    for path in sorted(folder.glob("*.json")):
        try:
            card = json.loads(path.read_bytes())
            outputs.append(LoggedModelOutput(_log(store, run, tags, path, card), card["step"]))
        except (ValueError, KeyError, TypeError):  # no card of a checkpoint
            continue
    if outputs:
        store.client.log_outputs(run, outputs)


def find_model(store: Store, run: str, backbone: str) -> str | None:
    """Id of the newest logged model of a backbone in a pipeline run; None where there is none."""
    models = store.client.search_logged_models(
        [store.experiment],
        f"name = '{backbone}' AND tags.scale = '{run}'",
        max_results=1,
        order_by=[{"field_name": "creation_timestamp", "ascending": False}],
    )
    return models[0].model_id if models else None


def forget_models(store: Store, run: str) -> None:
    """Delete the logged models of an MLflow run that is written anew."""
    for model in store.client.search_logged_models(
        [store.experiment], f"source_run_id = '{run}'", max_results=100
    ):
        store.client.delete_logged_model(model.model_id)


def _log(
    store: Store, run: str, tags: Mapping[str, str], path: Path, card: Mapping[str, Any]
) -> str:
    weights = path.with_suffix(".safetensors")
    ending = "" if path.stem == "last" else f"-{path.stem}"
    pointer = {"weights": str(weights), "sha256": card.get("weights_sha256", "")}
    own = {
        name: tags[name] for name in ("scale", "key", "method", "registers", "seed", "git_commit")
    }
    model = store.client.create_logged_model(
        store.experiment,
        name=f"{tags['subject']}{ending}",
        source_run_id=run,
        tags=own | pointer,
        params={name: str(value) for name, value in card["architecture"].items()},
        model_type="backbone",
    )
    about = {
        "flavors": {
            "python_function": {
                "loader_module": LOADER,
                "python_version": platform.python_version(),
            }
        },
        "model_id": model.model_id,
        "run_id": run,
    }
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / POINTER, pointer)
        write_text(Path(folder) / "MLmodel", yaml.safe_dump(about))
        store.client.log_model_artifacts(model.model_id, folder)
    store.client.finalize_logged_model(model.model_id, "READY")
    return model.model_id
