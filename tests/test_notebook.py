"""The notebook of the docs: it runs, on backbones of a moment, and counts no token by hand."""

import re
import runpy

import nbformat
import pytest
import torch
from pipeline import ROOT

from registers.layout import Layout
from registers.models import checkpoint
from registers.models.backbone import Architecture, build

NOTEBOOK = ROOT / "docs/science.ipynb"
execute = runpy.run_path(str(ROOT / "docs/notebook.py"))["execute"]


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_runs_from_backbone_to_boxes(notebook, tmp_path, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    layout = Layout(tmp_path / "results/laptop")
    for registers in (0, 4):
        id = f"dinov2-r{registers}-s0"
        shape = dict(width=16, depth=2, heads=2, patch=4, image=32)
        layout.training(id).mkdir(parents=True)
        backbone = build(Architecture(**shape, registers=registers), id)
        checkpoint.save(layout.checkpoint(id), backbone, {"method": "dinov2", "step": 1})
    names = execute(notebook)
    parts = {backbone.name: split for backbone, split in names["tokens"].items()}
    assert parts["dinov2-r4-s0"].registers.shape == (32, 4, 16)
    assert parts["dinov2-r0-s0"].patches.shape == (32, 64, 16)
    assert names["steps"].box.shape == (32, 4)
    kinds = [o.output_type for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert kinds.count("display_data") == 3 and "stream" in kinds


def test_it_is_shown_with_its_outputs_and_takes_no_sequence_apart_by_hand():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in cells[1:])
    code = "\n".join(cell.source for cell in cells)
    assert not re.search(r"\[:, ?(1|0)|1 ?\+ ?R|\+ registers", code)
    assert len(code.splitlines()) < 80
    assert "science.ipynb" in (ROOT / "README.md").read_text()
