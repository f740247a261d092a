"""Fixtures that several test files share."""

import compileall
import re

import pytest
from pipeline import CHECKOUT, ROOT, copy_parts, snakemake


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep together what shares a fixture: all files that need a finished run, else each file.

    pytest-xdist's own groups (--dist loadgroup) are ignored by pytest 9.2, which names tests anew.
    """
    from xdist.scheduler import LoadScopeScheduling

    class BySharedRun(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            text = (config.rootpath / file).read_text()
            return "finished" if re.search(r"def \w+\(finished[,)]", text) else file

    return BySharedRun(config, log)


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
