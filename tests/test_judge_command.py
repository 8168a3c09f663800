"""`jaxosc judge`: the page on a matrix of a file, and how it refuses."""

import re

import numpy as np
import pytest
from problems import skew
from scipy.integrate import solve_ivp

from jaxosc import cli

RELAXED = ["--tolerance", "1e-4"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with one file of each kind."""
    monkeypatch.chdir(tmp_path)
    np.save("skew.npy", skew(5, 1))
    np.save("symmetrizable.npy", (skew(4, 2) * [1, 2, 3, 4]).astype(np.float32))
    np.save("whole.npy", np.array([[0, 2], [-1, 0]]))
    np.save("centre.npy", np.array([[0.4, 1.0], [-1.0, -0.4]]))
    np.save("none.npy", np.array([[0.12, 2.0], [-1.0, -0.1]]))
    np.save("large.npy", skew(40, 3))
    np.savetxt("printed.csv", skew(4, 2) * [1, 2, 3, 4], delimiter=",", fmt="%.5f")
    np.save("symmetric.npy", np.eye(3))
    np.save("long.npy", np.ones((2, 3)))
    np.save("hole.npy", np.array([[0.0, np.nan], [1.0, 0.0]]))
    (tmp_path / "words.csv").write_text("a,b\nc,d\n")
    return tmp_path


def page(capsys, *words, starts=0):
    """What `jaxosc judge` prints, as one line; without a census, which takes its time."""
    assert cli.run(["judge", *words, "--starts", str(starts)]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return " ".join(shown.out.split())


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("skew.npy", ["skew (5 neurons, float64)", "H(y) = sum_i Phi(y_i)", "1 Casimir ", "1 eigenvalue 0"]),
        ("symmetrizable.npy", ["symmetrizable (4 neurons, float32)", "d = 0.451801, 0.903602, 1.3554, 1.8072"]),
        ("whole.npy", ["symmetrizable", "angular frequency 1.41421: period 4.44288, frequency 0.225079"]),
        ("centre.npy", ["linear_centre", "no energy is known", "exchanging neurons 0 and 1", "0 Casimirs"]),
        ("none.npy", ["none", "grows like exp(0.01 t)", "its eigenvalue 0.01+1.41j is not imaginary"]),
        ("large.npy", ["and 8 slower ones"]),
    ],
)
def test_the_page_tells_kind_spectrum_and_invariants(file, told, here, capsys):
    shown = page(capsys, file)
    assert [words for words in (*told, "reason", "spectrum", "invariants", "with tanh") if words not in shown] == []


def test_activation_decides_on_bounds(here, capsys):
    assert "Its level sets are bounded for Tanh" in page(capsys, "skew.npy")
    assert "Its level sets are not bounded for ReLU" in page(capsys, "skew.npy", "--activation", "relu")
    assert "a positive quadratic form" in page(capsys, "centre.npy", "--activation", "identity")
    (here / "mine.py").write_text("def steeper(y):\n    return 2.0 * y + y**3\n")
    assert "bounded for steeper" in page(capsys, "skew.npy", "--activation", "mine.py:steeper")


def test_printed_numbers_need_a_tolerance(here, capsys):
    assert "give a larger tolerance" in page(capsys, "printed.csv")
    assert "printed.csv: symmetrizable" in page(capsys, "printed.csv", *RELAXED)


def test_the_skew_part(here, capsys):
    assert "none.npy: skew" in page(capsys, "none.npy", "--weight-part", "skew")


def test_the_census_counts_kinds_of_orbit(here, capsys):
    """The strict limit cycle takes all starts; its period is that of a long run by another library."""
    shown = page(capsys, "none.npy", "--seed", "3", "--radius", "0.5", starts=3)
    assert "of 3 random starts (entries 0.5 * N(0, 1), seed 3)" in shown
    told = re.search(r"3 periodic: period (\S+)", shown)
    assert told is not None, shown
    weight = np.array([[0.12, 2.0], [-1.0, -0.1]])
    crosses = lambda t, y: y[0]  # noqa: E731
    crosses.direction = 1
    run = solve_ivp(lambda t, y: weight @ np.tanh(y), (0, 2000), [1.0, 0.0], events=crosses, rtol=1e-9, atol=1e-9)
    # Four digits are printed.
    assert float(told[1]) == pytest.approx(np.diff(run.t_events[0])[-1], rel=5e-4)
    assert "orbits no census; --starts 32" in page(capsys, "none.npy")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("skew.npy --starts -1", "--starts"),
        ("skew.npy --radius 0", "--radius"),
        ("nothing.npy", "no such file"),
        ("words.csv", "does not read as real numbers"),
        ("long.npy", "shape (2, 3)"),
        ("hole.npy", "1 NaN or infinite"),
        ("skew.npy --activation tnh", "did you mean 'tanh'?"),
        ("skew.npy --weight-part all", "expected one of skew"),
        ("symmetric.npy --weight-part skew", "without a skew part"),
        ("skew.npy --tolerance 2", "tolerance = 2"),
        ("", "requires an argument"),
    ],
)
def test_wrong_input_gives_one_sentence_and_code_2(words, told, here, capsys):
    assert cli.run(["judge", *words.split()]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("jaxosc: ")
    assert shown.err.count("\n") == 1
    assert told in shown.err
