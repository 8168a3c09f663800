"""The command line: what it prints, what it writes, and how it refuses; in this process except where said."""

import errno
import json
import shutil
import warnings

import numpy as np
import pytest
import xarray
import zarr

import jaxosc as jo
from jaxosc import cli, doctor, native

COMMANDS = ("sweep", "resume", "status", "report", "judge", "audit", "tune", "doctor")

TINY = "--activation tanh --solver euler,poisson_splitting --gain 1 --dt 0.1,0.2 --ics 3 --duration 5"
SMALL = f"{TINY} --neurons 2 --draws 2"

REFUSED = {
    "swep": 'Did you mean "sweep"?',
    "sweep --activaton tanh": "--activation",
    "sweep --draws many": "--draws",
    "sweep --draws 0": "draws = 0",
    "sweep --dt": "requires an argument",
    "sweep --dt small": "Got --dt small, expected numbers",
    "sweep --dt 0.1:1": "start:stop:num",
    "sweep --dt 0.1:1:3:cubic": "dt.scale = 'cubic', expected one of linear, log",
    "sweep --dt 0.1,0.2:1:3": "or one range",
    "sweep --dt -0.1": "expected a number > 0",
    "sweep --duration 0": "duration",
    "sweep --neurons 1": "neurons",
    "sweep --activation tnh": "did you mean 'tanh'?",
    "sweep --solver rk4": "expected one of euler",
    "sweep --ic-law square": "normal, sphere, uniform, energy",
    "sweep --weight nothing.npy": "no such file",
    "sweep --weight-part skew": "without weight_file",
    "sweep nothing.toml": "no such file",
    "sweep --memory 10": "memory",
    "sweep --out taken.txt": "expected a directory",
    "sweep --out foreign": "other files",
    "resume nowhere": "no store",
    "status nowhere": "no store",
    "status foreign": "other files",
    "report nowhere": "no store",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A small finished sweep without a report."""
    path = tmp_path_factory.mktemp("cli") / "small"
    assert cli.run(f"sweep {SMALL} --no-report --out {path}".split()) == 0
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_example(command, capsys):
    assert cli.run([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Example" in shown
    assert f"jaxosc {command}" in shown


def test_without_a_command_help_lists_all(capsys):
    assert cli.run([]) == 0
    shown = capsys.readouterr().out
    assert [command for command in COMMANDS if command not in shown] == []


def test_version(capsys):
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"jaxosc {jo.__version__}"


@pytest.mark.parametrize("words", REFUSED)
def test_wrong_input_gives_one_sentence_and_code_2(words, here, capsys):
    (here / "taken.txt").write_text("text")
    (here / "foreign").mkdir()
    (here / "foreign" / "thesis.tex").write_text("text")
    assert cli.run(words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxosc: ")
    assert error.count("\n") == 1
    assert REFUSED[words] in error
    assert sorted(path.name for path in here.iterdir()) == ["foreign", "taken.txt"]


def test_dry_run_prints_the_plan_and_writes_nothing(here, capsys):
    assert cli.run(["sweep", "--dry-run"]) == 0
    assert "497,664" in capsys.readouterr().out  # 3 activations, 3 solvers, 2 sizes, 3 gains, 9 dt, 32 draws, 32 starts
    assert list(here.iterdir()) == []


def test_sweep_writes_a_dataset_and_says_where(here, capsys):
    assert cli.run(f"sweep {SMALL} --no-report --out deep/small".split()) == 0
    shown = capsys.readouterr()
    assert "Sweep plan" in shown.out
    assert shown.out.splitlines()[-1] == "dataset  deep/small   (xarray.open_zarr('deep/small'))"
    data = xarray.open_zarr("deep/small")
    assert dict(data.sizes) == dict(activation=1, solver=2, neurons=1, gain=1, dt=2, draw=2, ic=3)
    assert bool((data.result == 0).all())


def test_options_become_the_spec(here):
    options = (
        "--activation tanh,erf --activation relu --solver tsit5 --weight-law circulant --neurons 4 --gain 0.5:2:3:log"
        " --dt 0.5 --leak 0,0.1 --asymmetry -0.2,0.2 --draws 1 --ics 1 --ic-law sphere --radius 2 --duration 1 --seed 7"
        " --measures norms --escape-norm 50 --x64"
    )
    assert cli.run(["sweep", *options.split(), "--no-report", "--out", "all"]) == 0
    spec = json.loads(xarray.open_zarr("all").attrs["spec"])
    expected = dict(
        activation=["tanh", "erf", "relu"],
        solver=["tsit5"],
        weight_law=["circulant"],
        neurons=[4],
        gain=pytest.approx([0.5, 1.0, 2.0]),
        leak=[0.0, 0.1],
        asymmetry=[-0.2, 0.2],
        duration=1.0,
        seed=7,
        measures=["norms"],
        escape_norm=50.0,
        dtype="float64",
    )
    assert {name: spec[name] for name in expected} == expected
    assert (spec["ic"]["law"], spec["ic"]["radius"]) == ("sphere", 2.0)


def test_energy_of_the_starts_implies_their_law():
    assert cli.Members(energy=["0.5"]).settings() == {"ic": {"energy": 0.5, "law": "energy"}}
    several = {"ic": {"energy": [0.5, 1.0], "law": "energy_per_neuron"}}
    assert cli.Members(energy=["0.5,1"], ic_law="energy_per_neuron").settings() == several


def test_spec_file_with_overrides(here):
    (here / "study.toml").write_text('activation = ["arctan"]\nsolver = ["euler"]\ndt = [0.5]\nduration = 2\nics = 2\n')
    assert cli.run(["sweep", "study.toml", "--draws", "3", "--no-report", "--out", "mine"]) == 0
    data = xarray.open_zarr("mine")
    assert data.activation.values.tolist() == ["arctan"]
    assert (data.sizes["draw"], data.sizes["ic"]) == (3, 2)


def test_weight_file(here, capsys):
    np.save("wiring.npy", np.triu(np.ones((3, 3)), 1))
    words = f"sweep {TINY} --weight wiring.npy --no-report --out mine".split()
    assert cli.run(words) == 2
    assert "is not skew" in capsys.readouterr().err
    assert cli.run([*words, "--weight-part", "skew", "--normalise", "spectral"]) == 0
    assert xarray.open_zarr("mine").neurons.values.tolist() == [3]


def test_a_finished_sweep_is_left_alone(store, capsys):
    before = (store / "ledger.jsonl").read_bytes()
    assert cli.run(f"sweep {SMALL} --no-report --out {store}".split()) == 0
    shown = capsys.readouterr().out
    assert "nothing to compute. To run it again" in shown
    assert (store / "ledger.jsonl").read_bytes() == before


def test_another_sweep_may_not_take_its_folder(store, capsys):
    assert cli.run(f"sweep {SMALL} --seed 1 --no-report --out {store}".split()) == 2
    assert "another sweep" in capsys.readouterr().err


def test_status_of_finished_and_unfinished(store, tmp_path, capsys):
    assert cli.run(["status", str(store)]) == 0
    assert "4 of 4 chunks" in capsys.readouterr().out
    unfinished = copy_without_last_chunk(store, tmp_path / "part")
    assert cli.run(["status", str(unfinished)]) == 0
    shown = capsys.readouterr().out
    assert "3 of 4 chunks" in shown
    assert "jaxosc resume" in shown


def test_resume_finishes_what_is_missing(store, tmp_path, capsys):
    unfinished = copy_without_last_chunk(store, tmp_path / "part")
    assert cli.run(["resume", str(unfinished), "--no-report"]) == 0
    assert "dataset" in capsys.readouterr().out
    whole, resumed = (xarray.open_zarr(path).load() for path in (store, unfinished))
    assert all(whole[name].identical(resumed[name]) for name in whole)


def test_sweep_continues_what_is_missing(store, tmp_path, capsys):
    unfinished = copy_without_last_chunk(store, tmp_path / "part")
    assert cli.run(f"sweep {SMALL} --no-report --out {unfinished}".split()) == 0
    assert "3 of 4 chunks of this sweep: continuing" in capsys.readouterr().out
    assert jo.sweeps.status(unfinished).complete


def copy_without_last_chunk(store, path):
    """The store as a killed process leaves it: a chunk is not in the ledger, and half of its numbers are wrong."""
    shutil.copytree(store, path)
    lines = (path / "ledger.jsonl").read_text().splitlines()
    (path / "ledger.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    solver, dt = divmod(json.loads(lines[-1])["chunk"], 2)
    zarr.open_array(path / "max_norm", mode="r+")[:, solver, :, :, dt] = -1
    return path


def test_report_says_where_the_page_is(store, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert cli.run(["report", str(store), "--out", str(page)]) == 0
    assert capsys.readouterr().out.strip() == f"report   {page}"
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_ctrl_c_ends_with_130(monkeypatch, here, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(jo.sweeps.Sweep, "run", interrupted)
    assert cli.run(f"sweep {SMALL} --out never".split()) == 130
    assert "dataset" not in capsys.readouterr().out


def test_a_full_disk_is_one_sentence(monkeypatch, here, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "never/energy_drift/c/0")

    monkeypatch.setattr(jo.sweeps.Sweep, "run", full)
    assert cli.run(f"sweep {SMALL} --out never".split()) == 2
    assert "No space left on device" in capsys.readouterr().err


def test_warnings_are_lines_without_source(monkeypatch, store, capsys):
    monkeypatch.setattr(jo.sweeps, "status", lambda path: warnings.warn("take care", stacklevel=1))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert cli.run(["status", str(store)]) == 0
    assert capsys.readouterr().err == "jaxosc: warning: take care\n"


def test_doctor_finds_full_precision_and_names_what_runs(capsys):
    assert cli.run(["doctor"]) == 0
    shown = capsys.readouterr().out
    for fact in ("devices", "threads", "free disk", "versions", "full float32", "compiled programs", "float64"):
        assert fact in shown


@pytest.mark.parametrize(
    ("asked", "command", "told"),
    [("1", "gcc", "in C where it can be, by gcc"), ("0", "gcc", "nobody asked"), ("1", None, "neither gcc nor clang")],
)
def test_doctor_tells_who_compiles_the_time_loops(monkeypatch, tmp_path, asked, command, told):
    monkeypatch.setenv(native.ASKED, asked)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for module in (native, native.build):
        monkeypatch.setattr(module, "compiler", lambda: command)
    assert told in dict(doctor._storage(tmp_path, None))["time loops"]


def test_doctor_complains_of_rounded_products(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "measure_precision", lambda: doctor.Precision(highest=1e-3, default=1e-3))
    assert cli.run(["doctor"]) == 1
    shown = capsys.readouterr()
    assert "REDUCED" in shown.out
    assert "expected at most" in shown.err


def test_measured_precision_tells_bfloat16_from_float32():
    measured = doctor.measure_precision()
    assert measured.full
    assert measured.highest > 0
    assert not doctor.Precision(highest=2.0**-11, default=0.0).full  # one rounding of the inputs to TF32


def test_a_process_of_its_own(fresh_python, tmp_path):
    """As a user has it: module entry point, float32 session, a report, and compiled programs kept for the next time."""
    home = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "COLUMNS": "200"}
    small = "--activation tanh --solver poisson_splitting --neurons 2 --gain 1 --dt 0.1 --draws 1 --ics 1 --duration 5"
    finished = fresh_python("-m", "jaxosc", "sweep", *small.split(), env=home)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[-2:] == [
        "dataset  jaxosc-sweep   (xarray.open_zarr('jaxosc-sweep'))",
        "report   jaxosc-sweep/report.html",
    ]
    assert "warning" not in finished.stderr
    assert "Traceback" not in finished.stderr
    data = xarray.open_zarr(tmp_path / "jaxosc-sweep")
    assert data.energy_drift.dtype == np.float32
    assert (tmp_path / "jaxosc-sweep" / "report.html").stat().st_size > 10_000
    assert any((tmp_path / "cache" / "jaxosc" / "xla").iterdir())
    refused = fresh_python("-m", "jaxosc", "sweep", "--dt", "-1", env=home)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
