"""The error of a wrong setting: one line that names the key, its value and what it must be."""

import difflib
from typing import Any


class ConfigError(ValueError):
    """A setting that cannot be used. The message is one line: key, value, what is allowed."""


def nearest(value: Any, allowed: Any) -> str:
    near = difflib.get_close_matches(str(value), [str(a) for a in allowed], n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def show(value: Any) -> str:
    text = repr(value).replace("\n", " ")
    return text if len(text) < 80 else text[:77] + "..."
