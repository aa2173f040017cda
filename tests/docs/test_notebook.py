"""The notebook is one, holds no output, and runs from its first cell to its last."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[2] / "docs" / "notebooks" / "first-run.ipynb"


def cells(kind: str) -> list[dict[str, Any]]:
    told = json.loads(FILE.read_text(encoding="utf-8"))
    return [cell for cell in told["cells"] if cell["cell_type"] == kind]


def test_it_is_python_without_outputs_and_its_links_lead_somewhere() -> None:
    import re

    found = cells("code")
    assert len(found) >= 4
    for cell in found:
        ast.parse("".join(cell["source"]))
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
    text = "".join(line for cell in cells("markdown") for line in cell["source"])
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert all((FILE.parent / link).exists() for link in links)


@pytest.mark.thorough
@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    notebook = nbformat.read(FILE, as_version=4)
    nbformat.validate(notebook)
    done = nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    last = [cell for cell in done.cells if cell.cell_type == "code"][-1]
    assert len(ast.literal_eval(last.outputs[-1]["data"]["text/plain"])) == 2
    assert (tmp_path / "runs" / "notebook-1" / "report.html").is_file()
