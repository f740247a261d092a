"""The error of a wrong setting: one line that names the key, its value and what it must be."""

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlong = 40
_SHORT.maxlevel = 3


class ConfigError(ValueError):
    """A setting that cannot be used. The message is one line: key, value, what it must be."""


class UnsuitableError(ValueError):
    """Raised by validators inside the models; `base.build` turns it into a `ConfigError`.

    key: below the section that is checked; "" for the checked value itself.
    """

    def __init__(self, key: str, value: Any, must: str) -> None:
        super().__init__(key, value, must)
        self.key = key
        self.value = value
        self.must = must


def refusal(key: str, value: Any, must: str) -> ConfigError:
    """`registers: -1 is not allowed; must be an integer of at least 0`. must: goes on "must be"."""
    return ConfigError(f"{key}: {show(value)} is not allowed; must be {must}")


def unknown(key: str, allowed: Iterable[str]) -> ConfigError:
    """`regsters: unknown key; must be one of ... (did you mean registers?)`. key: dotted."""
    names = sorted(allowed)
    near = nearest(key.rpartition(".")[2], names)
    return ConfigError(f"{key}: unknown key; must be one of {', '.join(names)}{near}")


def one_of(value: Any, allowed: Iterable[Any]) -> str:
    """ "one of k, q, v (did you mean k?)": what must be, where a value is chosen from a list."""
    choices = [str(choice) for choice in allowed]
    return f"one of {', '.join(choices)}{nearest(value, choices)}"


def nearest(value: Any, allowed: Iterable[Any]) -> str:
    """ " (did you mean lost?)", or nothing where no allowed value is spelt alike."""
    near = difflib.get_close_matches(str(value)[:80], [str(a) for a in allowed], n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def show(value: Any) -> str:
    """The value as Python writes it, on one line and cut where it is long."""
    try:
        text = _SHORT.repr(list(value) if isinstance(value, tuple) else value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "a number of too many digits"
    return " ".join(text.split())


def show_key(key: Any) -> str:
    """One part of a dotted name: as it is, or quoted and cut where it is no plain word."""
    is_plain = isinstance(key, str) and 0 < len(key) < 80 and key.isprintable()
    return key if is_plain else show(key)
