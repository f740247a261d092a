"""Fixtures that several test files share."""

import compileall

import pytest
from pipeline import CHECKOUT, ROOT, copy_parts, snakemake


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """Keep together what shares a fixture: all tests of a finished run, else those of a file."""
    for item in items:
        group = "finished" if "finished" in item.fixturenames else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))


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
