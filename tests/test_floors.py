"""Who may import whom: read from the imports themselves, late ones included."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "registers"
FILES = [path for path in SOURCE.rglob("*.py") if path.stem != "__init__"]
TREE = {
    path.relative_to(SOURCE).with_suffix("").as_posix().replace("/", "."): path for path in FILES
}
RECIPES = sorted(
    m for m in TREE if m.startswith("methods.") and m not in ("methods.method", "methods.schedules")
)

FLOOR_0 = {
    "settings", "registry", "layout", "questions", "artifacts", "digest", "stale",
    "measurements", "intervals", "differences", "files", "tracking", "stores", "reference",
    "vocabulary", "lost_arrays", "overlap", "inputs", "run_lock", "watchdog",
    "headlines", "records", "published", "core_speed",
}  # fmt: skip
FLOOR_1 = {
    "data",
    "world",
    "readers",
    "models",
    "losses",
    "outliers",
    "norm_statistics",
    "components",
}
MAKE, LOOK = {"methods", "train", "speed"}, {"tokens", "bank"}
FLOOR_3 = {"probes", "evals", "exact"}
FLOOR_4 = {"figures", "tables"}
# they open files, choose devices, and call the rest
BESIDE = {
    "cli", "arguments", "verbs", "measure", "draw", "plan", "clock", "ahead", "run_log", "stage",
}  # fmt: skip
FLOOR_5 = {"report", "claims", "page"}
ALLOWED = (
    dict.fromkeys(FLOOR_0, FLOOR_0)
    | dict.fromkeys(FLOOR_1, FLOOR_1 | FLOOR_0)
    | dict.fromkeys(MAKE, MAKE | FLOOR_1 | FLOOR_0)
    | {"speed": MAKE | {"exact"} | FLOOR_1 | FLOOR_0}
    | dict.fromkeys(LOOK, LOOK | FLOOR_1 | FLOOR_0)
    | dict.fromkeys(FLOOR_3, FLOOR_3 | LOOK | FLOOR_1 | FLOOR_0)
    | dict.fromkeys(FLOOR_4, FLOOR_4 | FLOOR_0)
    | dict.fromkeys(FLOOR_5, FLOOR_5 | FLOOR_4 | FLOOR_0)
    | {"audit": {"audit"} | LOOK | FLOOR_1 | FLOOR_0 | {"figures", "evals"}}
    # published weights in the place of trainings, through the audit's door; rules and verbs call it
    | {"released": {"released", "audit", "exact"} | FLOOR_1 | FLOOR_0}
    # the annex: the emergence study trains and looks in one job; nobody imports it
    | {"study": {"study"} | FLOOR_0 | FLOOR_1 | LOOK | FLOOR_3 | FLOOR_4}
)


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the floor"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(path: Path) -> set[str]:
    """First part below `registers` of everything imported from this project."""
    return {name.split(".")[1] for name in imported(path) if name.startswith("registers.")}


@pytest.mark.parametrize("module", sorted(TREE))
def test_imports_point_downwards(module):
    floor = module.split(".")[0]
    if floor in BESIDE:
        return
    assert floor in ALLOWED, f"{module} stands on no floor: add it to the table in this test"
    assert ours(TREE[module]) <= ALLOWED[floor]


@pytest.mark.parametrize(
    "module", [m for m in sorted(TREE) if m.split(".")[0] in FLOOR_4 | FLOOR_5 | FLOOR_0]
)
def test_nothing_that_draws_or_reports_imports_torch(module):
    assert not {name.split(".")[0] for name in imported(TREE[module])} & {
        "torch",
        "timm",
        "torchvision",
        "lightly",
        "open_clip",
    }


@pytest.mark.parametrize("module", RECIPES)
def test_a_method_imports_no_other_method(module):
    others = {n for n in imported(TREE[module]) if n.startswith("registers.methods.")}
    assert all(name.split(".")[2] in ("method", "schedules") for name in others)


@pytest.mark.parametrize("module", [m for m in sorted(TREE) if m.split(".")[0] in FLOOR_4])
def test_a_figure_opens_no_file(module):
    calls = {
        n.func.id
        for n in ast.walk(ast.parse(TREE[module].read_text()))
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    assert "open" not in calls
    names = {
        n.attr
        for n in ast.walk(ast.parse(TREE[module].read_text()))
        if isinstance(n, ast.Attribute)
    }
    assert not {name for name in names if name.startswith("read_")} and not names & {
        "read_text",
        "open",
        "load",
    }


def test_packages_are_empty_but_for_the_library():
    """`import registers` offers three functions; no other package has anything in its __init__."""
    full = [path for path in SOURCE.rglob("__init__.py") if path.read_text()]
    assert full == [SOURCE / "__init__.py"]


def test_only_stores_know_mlflow():
    those = {
        m for m, path in TREE.items() if any(n.split(".")[0] == "mlflow" for n in imported(path))
    }
    assert {module.split(".")[0] for module in those} == {"stores"}


def test_only_split_tokens_slices_a_sequence():
    """The token order has one owner: nobody else takes prefix tokens off by hand."""
    import re

    by_hand = re.compile(r"\[:, 1 ?(\+|:)")
    assert {m for m, path in TREE.items() if by_hand.search(path.read_text())} <= {
        "models.sequence"
    }


def test_no_two_public_classes_have_one_name():
    places = {}
    for module, path in TREE.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module)
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


def test_no_file_is_longer_than_400_lines():
    lengths = {module: len(path.read_text().splitlines()) for module, path in TREE.items()}
    assert {module: lines for module, lines in lengths.items() if lines > 400} == {}


def test_the_architecture_names_every_module():
    page = (SOURCE.parents[1] / "docs/architecture.md").read_text()
    modules = {module.split(".")[0] for module in TREE}
    assert not [name for name in modules if f"`{name}" not in page]


def test_an_annex_is_imported_by_nobody():
    outside = (module for module in TREE if not module.startswith("study."))
    assert not [module for module in outside if "study" in ours(TREE[module])]
