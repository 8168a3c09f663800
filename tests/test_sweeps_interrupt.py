"""Sweeps that are stopped: by Ctrl-C, by `kill -9`, by an error; and sweeps on several devices."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray
from rich.console import Console
from rich.text import Text

import jaxosc as jo
from jaxosc.sweeps import Sweep, ledger
from jaxosc.sweeps.plan import make_plan
from jaxosc.sweeps.progress import Bar, Silent
from jaxosc.sweeps.runner import MemorySink, run_into
from jaxosc.sweeps.work import Work

# Long enough (60,000 steps) that a chunk takes a noticeable time, small enough to compile fast.
SWEEP = Sweep(solver="euler", neurons=2, dt=0.01, draws=40, ics=2, duration=600, measures="norms", dtype="float64")
CHUNKS = 20

# What a shell starts in the background ignores Ctrl-C, and so does all that it starts.
SCRIPT = """
import signal
import sys
from pathlib import Path
import jaxosc as jo
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    jo.sweeps.load_spec(sys.argv[1]).run(sys.argv[2], chunk_members=4, workers=2)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture(scope="module")
def whole() -> xarray.Dataset:
    return SWEEP.run(progress=False)


def stopped(tmp_path: Path, repository: Path, number: int) -> tuple[Path, subprocess.CompletedProcess]:
    """A store whose process got the signal `number` after its second chunk, and how the process ended."""
    path = tmp_path / "data"
    spec = tmp_path / "spec.toml"
    spec.write_text(jo.sweeps.text.spec_toml(SWEEP))
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(spec), str(path)],
        env={**os.environ, "PYTHONPATH": str(repository)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (path.is_dir() and len(ledger.entries(path)) >= 2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    return path, subprocess.CompletedProcess(process.args, process.returncode, None, told)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_stopped_sweep_continues_to_the_same_bits(number: int, tmp_path: Path, repository: Path, whole: xarray.Dataset):
    path, ended = stopped(tmp_path, repository, number)
    if number == signal.SIGINT:
        assert ended.returncode == 130, ended.stderr
        assert "Interrupted after" in ended.stderr
        assert "Traceback" not in ended.stderr
    before = jo.sweeps.status(path)
    assert 2 <= before.chunks_done < before.chunks == CHUNKS
    assert before.finished == ""
    with pytest.warns(UserWarning, match="are not computed"):
        part = jo.sweeps.load(path)
    done = part.num_steps.values >= 0
    assert done.sum() >= before.members_done  # a chunk may be written and not yet listed
    after = jo.sweeps.resume(path, progress=False)
    assert set(after.data_vars) == set(whole.data_vars)
    for name in whole.data_vars:
        assert after[name].values.tobytes() == whole[name].values.tobytes(), name
    assert jo.sweeps.status(path).complete
    assert after.attrs["finished"]
    assert after.attrs["wall_time_s"] > before.wall_time_s


def test_a_failing_chunk_stops_the_sweep_and_keeps_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sweep = Sweep(solver="euler", neurons=2, draws=8, ics=1, duration=1, measures="norms")
    compute = Work.compute

    def failing(self, chunk, *rest):
        if chunk.number == 5:
            raise OSError(28, "No space left on device")
        return compute(self, chunk, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Work, "compute", failing)
        with pytest.raises(OSError, match="No space left"):
            sweep.run(tmp_path / "data", chunk_members=1, workers=1, progress=False)
    done = {entry.chunk for entry in ledger.entries(tmp_path / "data")}
    assert 5 not in done
    assert done >= {0, 1, 2, 3, 4}
    resumed = jo.sweeps.resume(tmp_path / "data", progress=False)
    np.testing.assert_array_equal(resumed.max_norm, sweep.run(progress=False).max_norm)


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C is an exception here, whatever the shell has said."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_within_a_session_leaves_nothing_running():
    class Impatient(Silent):
        """Presses Ctrl-C, once, when the first chunk is done."""

        pressed = False

        def chunk_done(self, chunk):
            if not self.pressed:
                self.pressed = True
                signal.raise_signal(signal.SIGINT)

    sink = MemorySink(make_plan(SWEEP.replace(duration=20), chunk_members=1, workers=2))
    with pytest.raises(KeyboardInterrupt):
        run_into(sink, Impatient())
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("sweep", "compile"))]
    assert 1 <= len(sink.done) < 80


def test_plain_progress_lines_say_rate_and_chunks(capsys: pytest.CaptureFixture):
    sweep = Sweep(solver="euler", neurons=2, draws=2, ics=1, duration=1, measures="norms")
    sweep.run()
    told = capsys.readouterr()
    assert told.out == ""
    assert "1/1 chunks" in told.err
    assert "member-steps/s" in told.err


def test_bar_shows_chunks_rate_and_combination():
    sweep = Sweep(solver="euler", neurons=2, draws=2, ics=1, duration=1, measures="norms")
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    run_into(MemorySink(make_plan(sweep)), Bar(console))
    shown = Text.from_ansi(console.file.getvalue()).plain
    for words in ("100 %", "1/1 chunks", "member-steps/s", "tanh, euler, n = 2, dt = 0.1"):
        assert words in shown


TWO_DEVICES = """
import jax, numpy as np
from jaxosc.sweeps import Sweep
from jaxosc.sweeps.plan import make_plan
from jaxosc.sweeps.work import Work
assert len(jax.devices()) == 2
plan = make_plan(Sweep(neurons=3, draws=8, ics=4, duration=5))
work = Work(plan, tuple(jax.devices()))
one, two = (work.compute(plan.chunk(0), device, lambda *_: None) for device in (0, 1))
assert work.compilations == 2
for name in one:
    assert one[name].tobytes() == two[name].tobytes(), name
assert np.ptp(one["max_norm"]) > 0
"""


def test_devices_give_the_same_bits(fresh_python: Callable):
    done = fresh_python("-c", TWO_DEVICES, env={"XLA_FLAGS": "--xla_force_host_platform_device_count=2"})
    assert done.returncode == 0, done.stderr
