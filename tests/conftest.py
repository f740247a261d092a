"""Fixtures that several test files share."""

import compileall
import re
import signal
import sys
from functools import cache

import pytest
from pipeline import CHECKOUT, ROOT, copy_parts, snakemake


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep together what shares a fixture: all tests of the finished run, else those of a file.

    pytest-xdist's own groups (--dist loadgroup) are ignored by pytest 9.2, which names tests anew.
    """
    from xdist.scheduler import LoadScopeScheduling

    class BySharedRun(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file, _, test = nodeid.partition("::")
            return "finished" if test.partition("[")[0] in _of_run(config.rootpath / file) else file

    return BySharedRun(config, log)


def pytest_configure(config):
    """End as Ctrl-C does where the tests are told to end, so that no Snakemake outlives them."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))


def pytest_collection_modifyitems(items):
    """Begin with what needs the finished run: it takes longest. -m "not pipeline" leaves it out."""
    for item in items:
        if item.originalname in _of_run(item.path):
            item.add_marker("pipeline")
    items.sort(key=lambda item: not item.get_closest_marker("pipeline"))


@cache
def _of_run(path):
    """Names of a file's tests that need the fixture `finished`, by themselves or by another one."""
    parameters = dict(re.findall(r"^def (\w+)\(([^)]*)\)", path.read_text(), re.M))
    needs = {"finished"}
    for _ in parameters:
        needs |= {name for name, text in parameters.items() if needs & set(text.split(", "))}
    return needs


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A file of MLflow without runs: its first migration takes seconds."""
    from mlflow.tracking import MlflowClient

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A copy of the checkout in which the whole pipeline ran at scale smoke."""
    folder = tmp_path_factory.mktemp("smoke")
    copy_parts(ROOT, folder, CHECKOUT)
    compileall.compile_dir(folder / "src", quiet=1)  # once, not in each of 130 jobs
    snakemake(folder)
    return folder
