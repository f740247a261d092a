"""Run a notebook's cells in the folder at hand and keep what they print and draw in it.

    python docs/notebook.py docs/science.ipynb        (`make docs` does it)

Cells share one namespace; the value of a cell's last line is shown, and every open figure. Plain
Python, because no kernel of Jupyter is among the locked packages.
"""

import ast
import base64
import contextlib
import io
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_output

DOTS = 80  # per inch


def run(path: Path) -> None:
    """Execute a notebook and write it back with its outputs. Raises what a cell raises."""
    notebook = nbformat.read(path, as_version=4)
    execute(notebook)
    nbformat.write(notebook, path)


def execute(notebook: NotebookNode) -> dict:
    """Execute all code cells, set their outputs, and return the names that they leave."""
    names: dict = {"__name__": "__main__"}
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(cells, start=1):
        cell.execution_count = number
        cell.outputs = _outputs(cell.source, names, number)
    return names


def _outputs(source: str, names: dict, number: int) -> list[NotebookNode]:
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        tree = ast.parse(source)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"cell {number}", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
    outputs = []
    if printed.getvalue():
        outputs.append(new_output("stream", name="stdout", text=printed.getvalue()))
    for figure in map(plt.figure, plt.get_fignums()):
        outputs.append(new_output("display_data", {"image/png": _png(figure)}))
    plt.close("all")
    if value is not None:
        text = {"text/plain": repr(value)}
        outputs.append(new_output("execute_result", text, execution_count=number))
    return outputs


def _png(figure: plt.Figure) -> str:
    picture = io.BytesIO()
    figure.savefig(
        picture, format="png", dpi=DOTS, bbox_inches="tight", metadata={"Software": None}
    )
    return base64.b64encode(picture.getvalue()).decode()


if __name__ == "__main__":
    plt.switch_backend("Agg")
    run(Path(sys.argv[1]))
