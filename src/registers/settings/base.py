"""What all sections of the settings share: frozen pydantic models, and their errors as one line."""

import contextlib
import types
import typing
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from registers.settings.errors import (
    ConfigError,
    UnsuitableError,
    nearest,
    refusal,
    show_key,
    unknown,
)

LARGEST = 10**9  # no setting counts further, and every library takes such an integer
WHOLE = "params.yaml"  # what errors call the settings as a whole
LONGEST = 4096  # characters of a text, as long as a path may be on Linux


def _writable(text: str) -> str:
    """Refuses what no file can be called: control characters and halves of characters."""
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text):
        raise UnsuitableError("", text, "a string on one line, without control characters")
    return text


def _expandable(path: str) -> str:
    """Refuses a path below the home folder of an unknown user."""
    try:
        Path(path).expanduser()
    except RuntimeError as error:
        raise UnsuitableError("", path, "a path whose ~ names a known user") from error
    return path


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise UnsuitableError("", list(values), "a list of different values")
    return values


Integer = Annotated[int, Field(le=LARGEST)]
Text = Annotated[str, Field(max_length=LONGEST), AfterValidator(_writable)]
PathText = Annotated[Text, AfterValidator(_expandable)]


class _Distinct(AfterValidator):
    """Refuses a list with a value that stands twice, in the schema for editors too."""

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        return {**handler(core), "uniqueItems": True}


Distinct = _Distinct(_distinct)


class Section(BaseModel):
    """A section of the settings: never changed, no unknown keys, no NaN and no infinity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _tolerant(cls, value: Any, info: Any) -> Any:
        return tolerant(value, cls.model_fields[info.field_name].annotation)


Model = TypeVar("Model", bound=Section)


def build(model: type[Model], values: Any, key: str = "") -> Model:
    """An instance of `model` from a mapping; raises `ConfigError` with one line.

    key: dotted name of the section in messages, "" for the whole of the settings.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
        # a misspelt key often makes another one missing: so the unknown ones first
        first = min(mistakes, key=lambda mistake: mistake["type"] != "extra_forbidden")
        raise _one_line(first, model, key) from None


def tolerant(value: Any, hint: Any) -> Any:
    """What the strict types do not take, but people and Snakemake write.

    One value stands for a list of one, lists become tuples, and numbers may be texts: Snakemake
    passes the numbers inside the lists of `--config` on as texts.
    """
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin is Annotated:
        return tolerant(value, arguments[0])
    if origin is tuple:
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            value = (value,)
        if isinstance(value, (list, tuple)):
            return tuple(tolerant(one, arguments[0]) for one in value)
    if origin is dict and isinstance(value, dict):
        return {name: tolerant(one, arguments[1]) for name, one in value.items()}
    if origin in (typing.Union, types.UnionType):
        return tolerant(value, arguments[0])
    if hint in (int, float) and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return hint(value)
    return value


# --- what a value must be, in words


def must_be(hint: Any, limits: Sequence[Any] = ()) -> str:
    """ "an integer of at least 0": type and limits of a field, for messages and the manual."""
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin is Annotated:
        return must_be(*_bare(hint, limits))
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        few = "a list" if _limit(limits, "min_length") is None else "a list of at least one"
        return f"{few}, each {must_be(arguments[0])}"
    if origin is dict and arguments[1] is Any:
        return "a mapping"
    if origin is dict:
        return f"a mapping of names, each to {must_be(arguments[1])}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(must_be(one) for one in arguments)
    if isinstance(hint, type) and issubclass(hint, Section):
        return f"a mapping of {', '.join(hint.model_fields)}"
    words = {
        int: "an integer",
        float: "a number",
        str: "a string",
        bool: "true or false",
        type(None): "null",
    }
    return words.get(hint, "a value") + _range(limits)


def _range(limits: Sequence[Any]) -> str:
    low = _limit(limits, "ge")
    above = _limit(limits, "gt")
    high = _limit(limits, "le")
    below = _limit(limits, "lt")
    step = _limit(limits, "multiple_of")
    multiple = f", a multiple of {step}" if step is not None else ""
    last = "" if high in (None, LARGEST) else f"{high:g}"
    if below is not None:
        last = f"below {below:g}"
    if low is not None and last:
        return f" from {low:g} to {last}{multiple}"
    if low is not None:
        return f" of at least {low:g}{multiple}"
    if above is not None:
        return f" above {above:g}" + (f" and at most {last}" if last else "") + multiple
    return f" of at most {last}{multiple}" if last else multiple


def _limit(limits: Sequence[Any], name: str) -> Any:
    """The tightest limit stands last: fields add theirs to those of their type."""
    values = [getattr(limit, name) for limit in limits if getattr(limit, name, None) is not None]
    return values[-1] if values else None


def _one_line(mistake: dict[str, Any], model: type[Section], key: str) -> ConfigError:
    """The sentence about one of pydantic's errors."""
    place = mistake["loc"]
    value = mistake["input"]
    if place and place[-1] == "[key]":
        return refusal(_dotted(key, place[:-2]) or WHOLE, place[-2], "a name, as a string")
    path = _dotted(key, place)
    if mistake["type"] in ("extra_forbidden", "invalid_key"):
        section, _ = _declared(model, place[:-1])
        path = _dotted(key, (*place[:-1], str(place[-1])))
        return unknown(path, section.model_fields)
    if mistake["type"] == "missing":
        return ConfigError(f"{path} is missing; must be {must_be(*_declared(model, place))}")
    problem = mistake.get("ctx", {}).get("error")
    if isinstance(problem, UnsuitableError):
        whole = ".".join(part for part in (path, problem.key) if part)
        return refusal(whole, problem.value, problem.must)
    hint, limits = _declared(model, place)
    must = must_be(hint, limits)
    if mistake["type"] == "finite_number":
        must = must.replace("a number", "a finite number")
    elif mistake["type"] == "less_than_equal" and mistake["ctx"]["le"] == LARGEST:
        must = f"an integer of at most {LARGEST}"
    elif mistake["type"] == "string_too_long":
        must = f"a string of at most {LONGEST} characters"
    elif mistake["type"] == "literal_error":
        must += nearest(value, typing.get_args(hint))
    return refusal(path or WHOLE, value, must)


def _declared(model: type[Section], place: tuple[Any, ...]) -> tuple[Any, list[Any]]:
    """Annotation and limits of the field or entry at a place such as ("sizes", "tiny", "width")."""
    hint: Any = model
    limits: list[Any] = []
    for part in place:
        if isinstance(hint, type) and issubclass(hint, Section):
            field = hint.model_fields[part]
            hint = field.annotation
            limits = field.metadata
        else:
            entry = -1 if isinstance(part, str) else 0
            hint = typing.get_args(hint)[entry]
            limits = []
        if typing.get_origin(hint) is Annotated:
            hint, limits = _bare(hint, limits)
    return hint, limits


def _bare(hint: Any, limits: Sequence[Any]) -> tuple[Any, list[Any]]:
    """`Annotated[int, Field(ge=0)]` as int and its limits."""
    inner = [limit for one in hint.__metadata__ for limit in getattr(one, "metadata", [one])]
    return typing.get_args(hint)[0], [*inner, *limits]


def _dotted(key: str, place: tuple[Any, ...]) -> str:
    """Names below names; the place of an entry in a list is left out, its value is shown."""
    names = [show_key(part) for part in place if not isinstance(part, int)]
    return ".".join(name for name in (key, *names) if name)
