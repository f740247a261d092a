"""dvc.yaml from repro to pull, with a stage that takes no time in the place of Snakemake's."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from pipeline import ROOT
from pipeline import run_in as run

from registers import headlines

# Writes what each stage leaves, of one number, linear.iterations; fails when asked to.
STAGE = f"""
import json, sys, yaml
from pathlib import Path
params = yaml.safe_load(Path("params.yaml").read_text())
scale = params["scale"]
number = (params["overrides"] or {{}}).get("linear", {{}}).get("iterations", 0)
results, reports = Path("results", scale), Path("reports", scale)
files = {{
    "data": [results / "data/eval.json"],
    "checkpoints": [results / "checkpoints/dinov2-r4-s0/last.safetensors"],
    "measurements": [results / "measurements/linear/dinov2-r4-s0.csv", results / "arrays/a.npz"],
    "reports": [results / "tracking/linear/dinov2-r4-s0.jsonl", results / "records.json",
                reports / "figures/fig04.png", reports / "figures/fig08.png",
                reports / "figures/fig12.png", reports / "training.png", reports / "paper.html"],
}}
for path in files[sys.argv[1]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{{number if sys.argv[1] in ('measurements', 'reports') else 0}}")
    if number == 13 and path.suffix == ".csv":
        sys.exit("asked to fail")
(results / "tracking/linear").mkdir(parents=True, exist_ok=True)
(results / "tracking/linear/dinov2-r4-s0.delivered").write_text("to a store that does not travel")
(results / "checkpoints/dinov2-r4-s0/unfinished").mkdir(parents=True, exist_ok=True)
(results / "checkpoints/dinov2-r4-s0/unfinished/state.pt").write_text("x")
if sys.argv[1] == "reports":
    for name in {(*headlines.COMPARED, "claims")!r}:
        (reports / "metrics").mkdir(exist_ok=True)
        (reports / f"metrics/{{name}}.json").write_text(json.dumps({{"dinov2": {{"r4": number}}}}))
"""


def files(folder):
    """Content by path of what DVC owns in a project."""
    found = [path for part in ("results", "reports") for path in (folder / part).rglob("*")]
    own = [p for p in found if p.is_file() and p.suffix != ".delivered" and p.name != "state.pt"]
    return {str(path.relative_to(folder)): path.read_text() for path in own}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A repository after `dvc repro` and `git commit`, with a remote."""
    folder = tmp_path_factory.mktemp("project")
    for name in (".dvcignore", "dvc.yaml", "params.yaml", ".gitignore", "Snakefile"):
        shutil.copy(ROOT / name, folder)
    (folder / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(ROOT / ".dvc" / name, folder / ".dvc")
    for name in ("paper", "workflow", "src/registers"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("")
    (folder / "src/registers/stage.py").write_text(STAGE)
    run(folder, "git", "init", "-q")
    run(folder, "dvc", "remote", "add", "-q", "-d", "store", str(tmp_path_factory.mktemp("remote")))
    run(folder, "dvc", "repro", "-q")
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "-q", "-m", "a run")
    return folder


def test_a_clone_gets_this_run_and_no_marks_of_another_store(project, tmp_path):
    run(project, "dvc", "push", "-q")
    run(tmp_path, "git", "clone", "-q", str(project), ".")
    run(tmp_path, "dvc", "pull", "-q")
    assert files(tmp_path) == files(project)
    spools = tmp_path / "results/laptop/tracking/linear"
    assert [path.name for path in spools.iterdir()] == ["dinov2-r4-s0.jsonl"]
    assert not list(tmp_path.rglob("unfinished"))
    assert "up to date" in run(tmp_path, "dvc", "status")


def test_an_edit_of_code_runs_the_stages_before_a_lock_certifies_it(project):
    code = project / "src/registers/outliers.py"
    code.write_text("x = 1\n")
    try:
        changed = json.loads(run(project, "dvc", "status", "--json"))
        assert set(changed) == {"data", "checkpoints", "measurements", "reports"}
    finally:
        code.unlink()


def test_experiments_compare_and_a_failed_one_leaves_no_mixture(project):
    before = files(project)
    setting = "+overrides.linear.iterations={}".format
    run(project, "dvc", "exp", "run", "-q", "-n", "more", "-S", setting(7))
    difference = json.loads(run(project, "dvc", "metrics", "diff", "--json"))
    assert difference["reports/laptop/metrics/linear.json"]["dinov2.r4"]["new"] == 7
    plots = run(project, "dvc", "plots", "diff", "HEAD", "more").strip().removeprefix("file://")
    page = Path(plots).read_text()
    assert page.count("<img") == 8 and "<script" not in page  # four pictures of each; offline
    shown = run(project, "dvc", "exp", "show", "--csv", "--only-changed")
    assert "more" in shown and len(shown.splitlines()[0].split(",")) < 25

    run(project, "dvc", "exp", "run", "-q", "-S", setting(13), ok=False)
    run(project, "git", "checkout", "-q", "params.yaml", "dvc.lock")
    run(project, "dvc", "checkout", "-q")
    assert files(project) == before
    assert "up to date" in run(project, "dvc", "status")


def test_another_scale_never_enters_the_lock_of_this_one(project):
    run(project, "dvc", "exp", "run", "-q", "--temp", "-n", "small", "-S", "scale=smoke")
    assert not (project / "results/smoke").exists()
    branches = run(project, "git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    (small,) = [branch for branch in branches if branch.endswith("/small")]
    lock = yaml.safe_load(run(project, "git", "show", f"{small}:dvc.lock"))
    outs = [out["path"] for stage in lock["stages"].values() for out in stage["outs"]]
    assert outs and all("/smoke" in out for out in outs)
    ours = yaml.safe_load((project / "dvc.lock").read_text())
    outs = [out["path"] for stage in ours["stages"].values() for out in stage["outs"]]
    assert outs and all("/laptop" in out for out in outs)
