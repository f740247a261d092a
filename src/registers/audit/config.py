"""timm's config.json, read and checked: one line names the file and what is wrong in it."""

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, ValidationError

from registers.audit.errors import AuditError
from registers.settings.errors import show

Positive = Annotated[FiniteFloat, Field(gt=0)]
Content = TypeVar("Content", bound=BaseModel)


class _Preprocessing(BaseModel):
    """What the audit takes of `pretrained_cfg`; timm knows the rest."""

    model_config = ConfigDict(extra="allow", strict=False)
    input_size: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] | None = None
    std: tuple[Positive, Positive, Positive] | None = None


class TimmConfig(BaseModel):
    """A model by timm's name, with its arguments and its preprocessing."""

    architecture: str
    model_args: dict[str, Any] = {}
    pretrained_cfg: _Preprocessing = _Preprocessing()

    @property
    def preprocessing(self) -> dict[str, Any]:
        return self.pretrained_cfg.model_dump(exclude_none=True)


def read(path: Path) -> dict[str, Any]:
    """What a config.json holds. Raises AuditError where it is no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise AuditError(f"{path}: not readable as JSON ({reason})") from None
    if not isinstance(content, dict):
        raise AuditError(f"{path}: holds {show(content)}; must be a JSON object")
    return content


def checked(content: dict[str, Any], path: Path) -> TimmConfig:
    """Raises AuditError, which names the key, its value and what it must be."""
    return valid(TimmConfig, content, path)


def valid(model: type[Content], content: dict[str, Any], path: Path) -> Content:
    """What a json holds, as a model of pydantic's. Raises AuditError as `checked` does."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise AuditError(f"{path}: {key} is missing") from None
        raise AuditError(f"{path}: {key}: {show(first['input'])}: {first['msg']}") from None
