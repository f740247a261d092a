"""`import registers` as a library: `registers.tokens`, `.outliers` and `.audit` can be called.

So can `registers.add_test_time_registers` and `registers.load_test_time_registers`.

The first three are also names of modules, and stay modules: whichever of them is imported becomes
callable, and calling it imports what the call needs. So `import registers` needs no torch, and
`from registers.tokens import capture` is what it was.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

FUNCTIONS = ("tokens", "outliers", "audit")  # of registers.audit.api, and modules of registers
# Of registers.audit.api, and no modules.
PLAIN = ("add_test_time_registers", "load_test_time_registers")


class Callable(ModuleType):
    """A module of this package that is also the function of its name in `registers.audit.api`."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        function = getattr(import_module("registers.audit.api"), self.__name__.rpartition(".")[2])
        return function(*arguments, **options)


class Library(ModuleType):
    """The package `registers`: its modules of these names are callable once they are imported."""

    def __getattr__(self, name: str) -> Any:
        if name in FUNCTIONS:
            return import_module(f"{self.__name__}.{name}")
        if name in PLAIN:
            return getattr(import_module("registers.audit.api"), name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in FUNCTIONS and isinstance(value, ModuleType):
            value.__class__ = Callable
        super().__setattr__(name, value)


def install(package: str) -> None:
    """Make a package a library; its `__init__` calls this with `__name__`."""
    module = sys.modules[package]
    module.__class__ = Library
    for name in FUNCTIONS:  # imported before
        if isinstance(module.__dict__.get(name), ModuleType):
            setattr(module, name, module.__dict__[name])
