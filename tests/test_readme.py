"""README's Python examples run, in order, as a reader would paste them."""

import re
from pathlib import Path

import numpy as np

import jaxosc as jo

BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
NEEDS_A_DOWNLOAD = "zipfile"


def test_examples_run_in_order(repository: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = [block for block in BLOCK.findall((repository / "README.md").read_text()) if NEEDS_A_DOWNLOAD not in block]
    assert len(blocks) == 8
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    # What README says in words about these examples.
    assert float(names["euler"].energy_drift) > 10 > 0.01 > abs(float(names["splitting"].energy_drift))
    tuned, song = names["tuned"], names["song"]
    end = jo.simulate(tuned.field, tuned.y0, t1=10 / 1.3, dt=0.002, solver=jo.solvers.PoissonSplitting(4)).ys[-1]
    np.testing.assert_allclose(end, tuned.y0, atol=1e-4)  # after ten periods
    assert song.error < 1e-3
    assert "tanh" in capsys.readouterr().out
    assert (tmp_path / "results" / "first-sweep" / "zarr.json").is_file()
