"""`jaxosc tune`: the networks it saves, seen by SciPy; the page; and how it refuses."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import jaxosc as jo
from jaxosc import cli
from jaxosc.tuning import Tuned

SECTIONS = ("network", "wanted", "measured", "energy", "outcome", "saved", "run it")
PAIR = "--frequency 1.3 --neurons 2"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """What four neurons, from the command line, become: the file."""
    path = tmp_path_factory.mktemp("tune") / "four.npz"
    assert cli.run(f"tune --frequency 0.7 --neurons 4 --seed 3 --out {path}".split()) == 0
    return path


def tune(words, code=0):
    """Run the command and hold its exit code against what is expected."""
    assert cli.run(["tune", *words.split()]) == code


def assert_period(field, y0, period):
    """By an adaptive run in SciPy: the state is back after a period, and nowhere near in between."""
    matrix = np.asarray(field.weight.matrix())
    times = period * np.linspace(0, 1, 101)
    options = dict(method="DOP853", t_eval=times, rtol=1e-12, atol=1e-12)
    run = solve_ivp(lambda t, y: matrix @ np.tanh(y), (0, period), np.asarray(y0), **options)
    away = np.linalg.norm(run.y.T - np.asarray(y0), axis=1) / np.linalg.norm(y0)
    # The start is on the closed orbit to about 1e-7, the line of a spectrum known to 1e-8.
    assert away[-1] < 1e-6
    assert away[10:91].min() > 0.2


def program(shown):
    """The lines of Python at the end of a page."""
    *_, lines = shown.partition("  run it ")
    return "\n".join(line.strip() for line in lines.strip().splitlines())


def test_a_pair_with_the_frequency(here, capsys):
    tune(f"{PAIR} --seed 5 --radius 0.7")
    shown = capsys.readouterr()
    assert shown.out.startswith("1.3: reached   (2 neurons, tanh, float64)\n")
    assert [name for name in SECTIONS if f"\n  {name} " not in shown.out] == []
    assert "frequency 1.3, period 0.7692307692" in shown.out
    found = jo.load("tuned.npz")
    assert isinstance(found, Tuned)
    assert found.field.dtype == jnp.float64
    assert_period(found.field, found.y0, 1 / 1.3)
    start = 0.7 * jax.random.normal(jax.random.fold_in(jax.random.key(5), 1), (2,))
    assert np.array_equal(found.y0, start)
    energy = re.search(r"H = (\S+)", shown.out)
    assert energy is not None
    # Six digits are printed; log cosh by hand.
    assert float(energy[1]) == pytest.approx(np.log(np.cosh(np.asarray(start))).sum(), rel=1e-5)


def test_four_neurons_on_a_closed_orbit(four):
    found = jo.load(four)
    assert found.y0.shape == (4,)
    assert_period(found.field, found.y0, 1 / 0.7)


def test_the_page_says_how_to_run_it(here, capsys):
    tune(PAIR)
    names = {}
    exec(program(capsys.readouterr().out), names)
    run = names["run"]
    assert run.ts[-1] == pytest.approx(10 / 1.3, rel=0.05)
    assert int(run.result) == 0
    # dt of the page is a quarter over |W|, where splitting of order 4 keeps the energy to better than 1e-4.
    assert abs(float(run.energy_drift)) < 1e-4
    assert np.ptp(np.asarray(run.ys)) > 0.5


def test_without_wide_numbers_in_the_session(here):
    """As users have it: the command computes in float64 whatever JAX is set to."""
    with jax.enable_x64(False):
        tune(PAIR)
    found = jo.load("tuned.npz")
    assert found.y0.dtype == found.field.dtype == jnp.float64
    assert_period(found.field, found.y0, 1 / 1.3)


def test_many_members_are_the_single_ones(here, capsys):
    tune(f"{PAIR} --seed 7 --members 3")
    assert "3 of 3 reached" in capsys.readouterr().out
    many = jo.load("tuned.npz")
    assert many.y0.shape == (3, 2)
    tune(f"{PAIR} --seed 8 --out one.npz")
    one = jo.load("one.npz")
    # The tuning of a batch may round otherwise.
    np.testing.assert_allclose(many.field.weight.matrix()[1], one.field.weight.matrix(), rtol=1e-12)
    assert np.array_equal(many.y0[1], one.y0)


def test_what_is_not_reached_is_told_and_saved(here, capsys):
    """A pair of ReLUs escapes on a straight line."""
    tune(f"{PAIR} --activation relu", code=1)
    shown = capsys.readouterr().out
    assert shown.startswith("1.3: not reached")
    assert "no frequency" in shown
    assert re.search(r"outcome +too slow: .*\n +.*closed=True", shown)
    assert not jo.load("tuned.npz").reached
    tune(f"{PAIR} --activation relu --members 2 --out two.npz", code=1)
    shown = capsys.readouterr().out
    assert "2 of 2 too slow" in shown
    assert "not reached by seed 0, 1" in shown


def test_a_picture(here, capsys):
    tune(f"{PAIR} --picture orbit.png")
    assert (here / "orbit.png").read_bytes().startswith(b"\x89PNG")
    assert "\n  picture    orbit.png" in capsys.readouterr().out


def test_a_file_is_replaced_only_if_told(here, capsys):
    (here / "tuned.npz").write_text("precious")
    tune(PAIR, code=2)
    assert "--out tuned.npz, which is there already: take another name, or add --overwrite" in capsys.readouterr().err
    assert (here / "tuned.npz").read_text() == "precious"
    tune(f"{PAIR} --overwrite")
    assert jo.load("tuned.npz").reached


def test_several_frequencies(here, capsys):
    tune("--frequency 8,13 --seed 2")
    shown = capsys.readouterr().out
    assert shown.startswith("8 and 13: reached   (4 neurons, tanh, float64)\n")
    found = jo.load("tuned.npz")
    assert found.reached
    # All but linear: the eigenvalues of W tell.
    turning = np.sort(np.abs(np.linalg.eigvals(np.asarray(found.field.weight.matrix())))) / (2 * np.pi)
    np.testing.assert_allclose(turning, [8, 8, 13, 13], rtol=1e-6)
    exec(program(shown), {})
    again = jo.tuning.design(jnp.array([8.0, 13.0]), key=jax.random.key(2))
    assert np.array_equal(found.y0, again.y0)


def test_a_waveform(here, capsys):
    times = np.arange(0, 20, 0.05)
    signal = np.sin(2 * np.pi * 1.1 * times) + 0.5 * np.cos(2 * np.pi * 0.37 * times) + 1
    np.savetxt("signal.csv", np.stack([times, signal], axis=1), delimiter=",", header="t,x", comments="")
    tune("--waveform signal.csv")
    shown = capsys.readouterr().out
    assert shown.startswith("signal.csv: fitted   (4 neurons")
    names = {}
    exec(program(shown), names)
    ts = names["ts"]
    wanted = np.sin(2 * np.pi * 1.1 * ts) + 0.5 * np.cos(2 * np.pi * 0.37 * ts) + 1
    assert ts[-1] == pytest.approx(199.5)
    # Ten times as long as the data, which were fitted to 2e-6.
    np.testing.assert_allclose(names["signal"][:, 0], wanted, atol=1e-3)


REFUSED = {
    "": "neither --frequency nor --waveform",
    "--frequency 1 --waveform w.csv": "both --frequency and --waveform",
    "--frequency 0": "--frequency = 0.0, expected a number > 0",
    "--frequency -1": "--frequency",
    "--frequency=-1": "--frequency = -1.0, expected a number > 0",
    "--frequency nan": "--frequency = nan, expected a finite number",
    "--frequency fast": "Got --frequency fast, expected numbers > 0",
    "--frequency 8,": "Got --frequency 8,, expected numbers > 0",
    "--frequency": "requires an argument",
    "--frequency 1 --neurons 1": "--neurons = 1, expected a whole number from 2",
    "--frequency 1 --neurons many": "--neurons",
    "--frequency 1 --members 0": "--members = 0, expected a whole number from 1",
    "--frequency 1 --seed=-1": "--seed = -1",
    "--frequency 1 --radius 0": "--radius = 0.0, expected a number > 0",
    "--frequency 1 --energy 1": "--energy for one frequency, expected it for several frequencies only",
    "--frequency 1,2 --members 2": "--members for several frequencies, expected it for one frequency only",
    "--waveform w.csv --seed 1": "--seed for a waveform",
    "--frequency 1,2 --neurons 3": "expected at least 2m = 4",
    "--frequency 1,2 --energy=-1": "energy",
    "--frequency 1 --activation tnh": "did you mean 'tanh'?",
    "--frequency 1 --activation mine.py:softer": "a function of your own cannot be saved",
    "--frequency 1 --out tuned": "--out tuned, expected a name that ends with .npz",
    "--frequency 1 --out nowhere/tuned.npz": "make nowhere first",
    "--frequency 1 --out folder.npz": "cannot be written",
    "--frequency 1 --picture orbit.jpg": "ends with .png or .pdf or .svg",
    "--frequency 1 --picture nowhere/orbit.png": "--picture nowhere/orbit.png, expected a folder",
}


@pytest.mark.parametrize("words", REFUSED)
def test_wrong_input_gives_one_sentence_and_code_2(words, here, capsys):
    (here / "folder.npz").mkdir()
    tune(words, code=2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("jaxosc: ")
    assert shown.err.count("\n") == 1
    assert REFUSED[words] in shown.err
    assert [path.name for path in here.iterdir()] == ["folder.npz"]
