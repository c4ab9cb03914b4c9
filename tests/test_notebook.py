"""The notebook runs from its first cell to its last, on a tiny model."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "examples" / "main_path.ipynb"


# Of the embedded benchmark's tasks, the building of which takes longest.
FEW = '"benchmark.facts_per_task=1", "benchmark.tasks=[disease_to_gene, code_to_chapter, note_sections]",'


def test_the_notebook_runs(tiny_base, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDCARE_BASE", str(tiny_base))
    monkeypatch.setenv("MEDCARE_OUT", str(tmp_path / "out"))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace('"benchmark.facts_per_task=3",', FEW)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "merged:" in printed
    assert (tmp_path / "out" / "model" / "config.json").is_file()
    pictures = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert sum("image/png" in output["data"] for output in pictures) == 2
