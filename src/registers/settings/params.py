"""What a person chooses for a run: the content of params.yaml."""

import os
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from registers.registry import MAIN_METHODS
from registers.settings.base import Distinct, Integer, PathText, Section, Text
from registers.settings.data import IMAGE_ROLES, DataSettings
from registers.settings.errors import UnsuitableError

MLFLOW = "sqlite:///mlflow.db"
STORES = ("sqlite", "postgresql", "mysql", "mssql", "file", "http", "https", "databricks")

RegisterCounts = Annotated[tuple[Annotated[Integer, Field(ge=0, le=1024)], ...], Distinct]
Seeds = Annotated[tuple[Annotated[Integer, Field(ge=0)], ...], Distinct]
Methods = Annotated[tuple[Literal[MAIN_METHODS], ...], Distinct]


class Choices(Section):
    """What params.yaml hands on to the settings unchanged."""

    scale: Text = Field("laptop", description="How big the run is: a file of workflow/scales.")
    methods: Methods = Field(
        MAIN_METHODS, min_length=1, description="Ways of training (paper, section 3.1)."
    )
    registers: RegisterCounts = Field(
        (0, 1, 2, 4, 8, 16),
        min_length=1,
        description="Numbers of register tokens; each is a backbone of its own (paper, Fig. 8).",
    )
    seeds: Seeds = Field(
        (0,), min_length=1, description="Each is a run of its own; several give error bars."
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="auto takes a GPU if there is one."
    )
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        "auto", description="auto is bf16-mixed on CUDA and 32-true elsewhere."
    )
    mlflow_uri: Text = Field(
        default_factory=lambda: default_uri(),
        validate_default=True,
        description="Where MLflow keeps the runs: a SQLite file or the address of a server; null "
        f"for $MLFLOW_TRACKING_URI or else {MLFLOW}.",
    )
    stale: Literal["keep", "retrain"] = Field(
        "keep",
        description="Finished trainings whose code has changed since: keep them (and say so), or "
        "train them again.",
    )

    @field_validator("mlflow_uri", mode="before")
    @classmethod
    def _nothing_means_the_default(cls, uri: Any) -> Any:
        return default_uri() if uri in (None, "") else uri

    @field_validator("mlflow_uri")
    @classmethod
    def _known_to_mlflow(cls, uri: str) -> str:
        """Of a store that MLflow does not know, runs would wait for ever, and silently."""
        scheme, found, _ = uri.partition("://")
        if found and scheme.partition("+")[0] not in STORES:
            raise UnsuitableError("", uri, f"an address that begins with {', '.join(STORES)}")
        if not found and uri.endswith(".db"):
            raise UnsuitableError("", uri, f"sqlite:///{uri} for a SQLite file")
        return uri


def _forms_of_use(schema: dict[str, Any]) -> None:
    """The schema of `use` for editors: null, a data set, or data sets by role."""
    roles = DataSettings.model_json_schema()["properties"]
    mapping = {"type": "object", "properties": roles, "additionalProperties": False}
    for key in ("type", "additionalProperties"):
        schema.pop(key, None)
    schema["anyOf"] = [{"type": ["string", "null"]}, mapping]


class DataChoice(Section):
    """Where data sets lie, and which ones replace the scale's own."""

    root: PathText = Field(
        "data", description="Folder of the data sets, and of `registers download`."
    )
    use: dict[str, Any] = Field(
        default_factory=dict,
        json_schema_extra=_forms_of_use,
        description="null; one data set in place of all the scale's images; or a mapping of "
        "roles to data sets.",
    )

    @field_validator("root", mode="before")
    @classmethod
    def _nothing_means_data(cls, root: Any) -> Any:
        return "data" if root in (None, "") else root

    @field_validator("use", mode="before")
    @classmethod
    def _by_role(cls, use: Any) -> Any:
        if use is None:
            return {}
        if isinstance(use, str):
            return dict.fromkeys(IMAGE_ROLES, use) if use else {}
        if not isinstance(use, dict):
            roles = ", ".join(DataSettings.model_fields)
            raise UnsuitableError("", use, f"one data set or a mapping of roles ({roles})")
        return use


class Params(Choices):
    """params.yaml as a whole."""

    data: DataChoice = Field(
        default_factory=DataChoice, description="Where data sets lie and which are used."
    )
    models: tuple[Text, ...] | None = Field(
        None,
        description="Of scale released, which published models: all (of paper/released.yaml), "
        "default (its default ones), or a list of ids such as dinov2-giant-r0-s0; null for the "
        "scale's own.",
    )
    overrides: dict[str, Any] = Field(
        default_factory=dict,
        description="Single settings of the scale by dotted name, such as "
        "{recipes.dinov2.steps: 500}, or whole sections.",
    )

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, content: Any) -> Any:
        """`data: folder:photos` is its `use`; what is null is left out."""
        if not isinstance(content, dict):
            return content
        content = dict(content)
        for name in ("data", "overrides"):
            if content.get(name, {}) is None:
                del content[name]
        if isinstance(content.get("data"), str):
            content["data"] = {"use": content["data"]}
        return content


def default_uri() -> str:
    """MLflow's own environment variable, or a SQLite file beside the results."""
    return os.environ.get("MLFLOW_TRACKING_URI") or MLFLOW
