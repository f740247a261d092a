"""Code as an input: a digest of modules and of all that they import inside this package.

Taken on the syntax tree, without docstrings, comments and layout: rewording a docstring changes
nothing, changing a line of code changes the digest of every module that imports it. The rules pass
it on as a parameter, so that Snakemake measures and draws again what other code would make.

Settings are left out: their values are parameters of the rules already, and what reads them from
YAML does not change a number.
"""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
ROOT = PACKAGE.name
# What changes no number: values and paths are parameters of the rules, spools and logs are records.
NO_NUMBER = ("settings", "layout", "tracking", "watchdog", "digest")
LEFT_OUT = tuple(f"{ROOT}.{name}" for name in NO_NUMBER)


def digest(*modules: str) -> str:
    """Twelve hexadecimal digits for the code of modules and of all that they import from here.

    modules: dotted names, "registers.probes.norms". Raises ValueError for one that does not exist.
    """
    return _digest_of(closure(modules))


def training_digest(recipe: str) -> str:
    """What a card says of the code that trained: the recipe's module, the loop and their imports.

    Without the registry, which names and colours methods: a new colour makes no weights stale.
    """
    return _digest_of(closure([recipe, f"{ROOT}.train"]) - {f"{ROOT}.registry"})


def closure(modules: Iterable[str]) -> set[str]:
    """The modules and all that they import inside this package, late imports included."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in found or module.startswith(LEFT_OUT):
            continue
        found.add(module)
        waiting += imports(module)
    return found


@cache
def imports(module: str) -> tuple[str, ...]:
    """Modules of this package that one module imports, at the top or late."""
    names = []
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # a name that is imported may be a module of a package, or a function of a module
            names += [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
    ours = (name for name in names if name.startswith(f"{ROOT}."))
    return tuple(dict.fromkeys(name for name in ours if _file(name)))


def _digest_of(modules: Iterable[str]) -> str:
    content = [f"{module} {_code(module)}" for module in sorted(modules)]
    return hashlib.sha256("\n".join(content).encode()).hexdigest()[:12]


@cache
def _code(module: str) -> str:
    """The module's syntax tree as text, the same for every version of Python that can read it."""
    return hashlib.sha256(_text(_without_docstrings(_tree(module))).encode()).hexdigest()


def _text(node: object) -> str:
    """Like ast.dump, but without empty fields: newer versions of Python add some."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if name != "kind")
        inside = ",".join(
            f"{name}={_text(value)}" for name, value in fields if value not in (None, [])
        )
        return f"{type(node).__name__}({inside})"
    if isinstance(node, list):
        return f"[{','.join(map(_text, node))}]"
    return repr(node)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        first = body[0] if body else None
        constant = first.value if isinstance(first, ast.Expr) else None
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
            del body[0]
    return tree


def _tree(module: str) -> ast.Module:
    file = _file(module)
    if file is None:
        raise ValueError(f"module = {module}: no such file in {PACKAGE}")
    return ast.parse(file.read_text())


def _file(module: str) -> Path | None:
    """The file of a module; None for a package, a name inside a module, or anything else."""
    path = PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return path if path.is_file() else None
