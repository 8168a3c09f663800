"""Check that every notebook agrees with its paired text file, holds real outputs, and runs at small size.

    JAXOSC_QUICK=1 python .ci/notebooks.py SCRATCH_FOLDER

The text file `notebooks/NAME.py` (jupytext, percent format) is the source; `notebooks/NAME.ipynb` is the same cells
with the outputs of a full run. Executed copies go to the scratch folder, where the notebooks also run.
"""

import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def complaints(text: Path) -> list[str]:
    """What is wrong with the stored pair of this text file, as sentences."""
    stored = text.with_suffix(".ipynb")
    if not stored.exists():
        return [f"{text.name} has no paired {stored.name}: run `jupytext --sync` and execute it."]
    source, notebook = jupytext.read(text), nbformat.read(stored, as_version=4)
    found = []
    if cells(source) != cells(notebook):
        found.append(f"{text.name} and {stored.name} differ: run `jupytext --sync {text.name}` and execute it again.")
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    if any(cell.execution_count is None for cell in code):
        found.append(f"{stored.name} has cells that were never run: execute it and store it with outputs.")
    if any(output.output_type == "error" for cell in code for output in cell.outputs):
        found.append(f"{stored.name} holds an error output: mend it and execute it again.")
    return found


def cells(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """Kind and text of every cell."""
    return [(cell.cell_type, cell.source.strip()) for cell in notebook.cells]


def execute(text: Path, folder: Path) -> float:
    """Run the text file as a notebook inside `folder`; seconds taken. A failing cell raises with its traceback."""
    notebook = jupytext.read(text)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}})
    started = time.perf_counter()
    client.execute()
    nbformat.write(notebook, folder / f"{text.stem}.ipynb")
    return time.perf_counter() - started


def main(folder: Path) -> int:
    """Check and run all; 0 when nothing was wrong."""
    texts = sorted(NOTEBOOKS.glob("*.py"))
    strays = {path.stem for path in NOTEBOOKS.glob("*.ipynb")} - {path.stem for path in texts}
    found = [f"{stem}.ipynb has no paired {stem}.py: run `jupytext --set-formats ipynb,py:percent`." for stem in strays]
    found += [complaint for text in texts for complaint in complaints(text)]
    if not texts:
        found.append(f"{NOTEBOOKS.name}/ holds no notebooks, expected some.")
    folder.mkdir(parents=True, exist_ok=True)
    for text in texts:
        print(f"{text.name}: ran in {execute(text, folder):.0f} s", flush=True)
    for complaint in found:
        print(complaint, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
