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
    assert len(blocks) == 7
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    # What README says in words about these examples.
    assert float(names["euler"].energy_drift) > 10 > 0.01 > abs(float(names["splitting"].energy_drift))
    tuned = names["tuned"]
    period = jo.oracles.pair_period(tuned.energy(names["y0"]), tuned.weight.matrix()[0, 1])
    np.testing.assert_allclose(1 / period, 0.25, rtol=1e-4)  # order 2 at dt = 0.02
    assert "tanh" in capsys.readouterr().out
    assert (tmp_path / "results" / "first-sweep" / "zarr.json").is_file()
