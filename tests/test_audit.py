"""Audits against what is known: a table of truths, the windows, and what is refused."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field as dataclass_field

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest
from problems import rotation, skew

import jaxosc as jo
from jaxosc import cli
from jaxosc.audit.fits import BOUNDED, EXACT, EXPONENTIAL, LINEAR, SQRT
from jaxosc.audit.runs import kept_steps
from jaxosc.audit.windows import AbstractMeasure, read_windows, windows_of
from jaxosc.fields import AbstractField
from jaxosc.simulate import lanes_of, run_lanes
from jaxosc.solvers import DiscreteGradient, PairSplitting, PoissonSplitting
from jaxosc.weights import DenseSkew, Symmetrizable

SURE = 0.7
"""Confidence that every row of the table reaches: seven of ten pieces of the run say the same."""

DT = 0.1


def network(n: int, activation=None, **options) -> jo.CurrentRNN:
    """A skew network of spectral norm 1; for n = 2 the pair with w = 1."""
    weight = rotation(1.0) if n == 2 else skew(n, seed=1)
    return jo.CurrentRNN(DenseSkew.from_matrix(weight), activation, **options)


def perturbed(n: int, amount: float, activation=None) -> jo.CurrentRNN:
    """W = S + amount * M, M symmetric and positive definite: a positive amount feeds, a negative one damps."""
    half = np.random.default_rng(0).standard_normal((n, n))
    positive = half @ half.T
    return jo.CurrentRNN(skew(n, seed=1) + amount * positive / np.linalg.norm(positive, 2), activation)


def symmetrizable() -> jo.CurrentRNN:
    """W = S diag(d): not skew, and conservative."""
    part = DenseSkew.from_matrix(skew(4, seed=5))
    return jo.CurrentRNN(Symmetrizable.from_energy_weights(part, np.array([0.5, 1.0, 2.0, 1.5])))


def start(n: int, size: float = 1.0) -> jnp.ndarray:
    return jnp.asarray(size * np.random.default_rng(7).standard_normal(n))


@dataclass(frozen=True)
class Truth:
    """One row: what a solver must be found to keep of a network, `casimir` and `rate` where they are known."""

    name: str
    make_field: Callable[[], AbstractField]
    solver: diffrax.AbstractSolver
    verdicts: dict[str, str]
    t1: float = 2000.0
    dt: float = DT
    size: float = 1.0
    rates: dict[str, float] = dataclass_field(default_factory=dict)
    rate_tolerance: float = 0.05

    def __str__(self) -> str:
        return self.name


EULER, SPLITTING, TSIT5 = jo.ForwardEuler(), PoissonSplitting(2), diffrax.Tsit5()
GROWTH = np.log(jo.oracles.euler_linear_growth(1.0, DT)) / DT
ALL_EXACT = {"casimir 1": EXACT, "volume": EXACT, "oddness": EXACT, "reversal": EXACT}

TRUTHS = (
    # Forward Euler: |y|^2 grows by 1 + dt^2 w^2 a step, and the area with it; tanh turns that into sqrt(t).
    Truth(
        "euler, linear pair",
        lambda: network(2, jo.Identity()),
        EULER,
        {"energy": EXPONENTIAL, "volume": LINEAR, "oddness": EXACT},
        rates={"energy": GROWTH, "volume": GROWTH},
        rate_tolerance=1e-6,  # the law is exact: what is left is rounding
    ),
    Truth("euler, pair", lambda: network(2), EULER, {"energy": SQRT}, t1=1e4),
    Truth("euler, n = 3", lambda: network(3), EULER, {"energy": SQRT, "casimir 1": EXACT, "reversal": LINEAR}, t1=1e4),
    # Runge-Kutta: a slow and steady loss.
    Truth("tsit5, pair", lambda: network(2), TSIT5, {"energy": LINEAR}),
    Truth("tsit5, large pair", lambda: network(2), TSIT5, {"energy": LINEAR}, size=3.0),
    Truth("tsit5, n = 3", lambda: network(3), TSIT5, {"energy": LINEAR, "casimir 1": EXACT, "reversal": LINEAR}),
    Truth("tsit5, chaos at n = 8", lambda: network(8), TSIT5, {"energy": LINEAR}, t1=5000.0),
    # Poisson splitting: bounded energy, all else to rounding.
    Truth("splitting, n = 3", lambda: network(3), SPLITTING, {"energy": BOUNDED, **ALL_EXACT}, t1=1e4),
    Truth("splitting, pair", lambda: network(2), SPLITTING, {"energy": BOUNDED, "reversal": EXACT}, t1=1e4),
    Truth("splitting, large pair", lambda: network(2), SPLITTING, {"energy": BOUNDED}, size=8.0, t1=1e4),
    Truth("splitting, linear pair", lambda: network(2, jo.Identity()), SPLITTING, {"energy": BOUNDED}),
    Truth("splitting, near-regular at n = 8", lambda: network(8), SPLITTING, {"energy": BOUNDED}, size=0.3, t1=5000.0),
    Truth(
        "splitting, chaos at n = 8",
        lambda: network(8),
        SPLITTING,
        {"energy": BOUNDED, "reversal": EXPONENTIAL},
        size=1.5,
        t1=5000.0,
    ),
    Truth("splitting of order 4", lambda: network(3), PoissonSplitting(4), {"energy": BOUNDED, "casimir 1": EXACT}),
    Truth("splitting of order 1", lambda: network(2), PoissonSplitting(1), {"energy": BOUNDED}, t1=5000.0),
    Truth("splitting, symmetrizable", symmetrizable, SPLITTING, {"energy": BOUNDED}),
    Truth(
        "splitting, bias", lambda: network(2, bias=jnp.array([0.3, -0.2])), SPLITTING, {"energy": BOUNDED}, t1=5000.0
    ),
    Truth(
        "splitting, rate form",
        lambda: jo.RateRNN(DenseSkew.from_matrix(skew(3, seed=1)), bias=jnp.array([0.1, 0.2, 0.3])),
        SPLITTING,
        {"energy": BOUNDED, "casimir 1": EXACT, "oddness": "not_applicable"},
    ),
    # Solvers that keep the energy itself.
    Truth(
        "pairs, n = 3",
        lambda: network(3),
        PairSplitting(),
        {"energy": EXACT, "casimir 1": BOUNDED},
        t1=5000.0,
    ),
    Truth("discrete gradient", lambda: network(3), DiscreteGradient(), {"energy": EXACT, "casimir 1": EXACT}),
    # An implicit solver of Diffrax, called lane by lane: it damps as Euler feeds.
    Truth(
        "implicit euler, linear pair",
        lambda: network(2, jo.Identity()),
        diffrax.ImplicitEuler(root_finder=optimistix.Newton(rtol=1e-10, atol=1e-12)),
        {"energy": EXPONENTIAL},
        rates={"energy": -GROWTH},
        rate_tolerance=1e-6,
        t1=400.0,
    ),
    # The network itself loses or gains.
    Truth(
        "leak",
        lambda: network(3, leak=0.1),
        SPLITTING,
        {"energy": EXPONENTIAL, "casimir 1": EXPONENTIAL, "volume": EXACT},
        rates={"energy": -0.2, "casimir 1": -0.1},
        rate_tolerance=0.02,  # of the energy: the exponent is that of small amplitudes, reached within the run
    ),
    Truth("noise that feeds", lambda: perturbed(4, 0.05), SPLITTING, {"energy": LINEAR}),
    Truth("noise that feeds a large state", lambda: perturbed(4, 0.05), SPLITTING, {"energy": LINEAR}, size=40.0),
    Truth("noise that damps a large state", lambda: perturbed(4, -0.005), SPLITTING, {"energy": LINEAR}, size=40.0),
    Truth("noise that damps", lambda: perturbed(4, -0.05), SPLITTING, {"energy": EXPONENTIAL}),
    Truth(
        "noise that feeds a linear network",
        lambda: perturbed(4, 0.05, jo.Identity()),
        SPLITTING,
        {"energy": EXPONENTIAL},
    ),
    Truth(
        "noise that damps a linear network",
        lambda: perturbed(4, -0.05, jo.Identity()),
        SPLITTING,
        {"energy": EXPONENTIAL},
    ),
)


def audited(truth: Truth) -> jo.Audit:
    network = truth.make_field()
    names = tuple({"casimirs" if name.startswith("casimir") else name: None for name in truth.verdicts})
    y0 = start(network.size, truth.size)
    return jo.audit(network, y0, truth.solver, truth.dt, truth.t1, invariants=names)


@pytest.mark.parametrize("truth", TRUTHS, ids=str)
def test_known_truths(truth: Truth) -> None:
    report = audited(truth)
    assert {name: report.finding(name).verdict for name in truth.verdicts} == truth.verdicts, report
    for name in truth.verdicts:
        finding = report.finding(name)
        assert finding.confidence >= SURE, report
        assert finding.sentence.endswith(".")
    for name, rate in truth.rates.items():
        assert report.finding(name).rate == pytest.approx(rate, rel=truth.rate_tolerance), report


def test_a_small_drift_is_measured_and_not_only_named() -> None:
    """Tsit5 loses some 1e-10 of the energy per unit time: the rate against the change of H from end to end."""
    field, y0, t1 = network(2), start(2), 2000.0
    run = jo.simulate(field, y0, t1=t1, dt=DT, solver=TSIT5)
    found = jo.audit(field, y0, TSIT5, DT, t1, invariants=("energy",)).energy
    assert -1e-8 < found.rate < -1e-12
    assert found.rate * t1 == pytest.approx(float(run.energy_drift), rel=0.01)  # the oscillation is a hundredth
    assert found.exponent == pytest.approx(1.0, abs=0.02)
    assert found.size == pytest.approx(abs(float(run.energy_drift)), rel=0.05)


def test_the_square_root_of_euler_has_the_coefficient_of_theory() -> None:
    """(H + ln 4)^2 = (H0 + ln 4)^2 + 2 dt w^2 t for the pair, so H grows by sqrt(2 dt) per sqrt(t)."""
    field, y0 = network(2), start(2)
    found = jo.audit(field, y0, EULER, DT, 1e4, invariants=("energy",)).energy
    # At t = 1e4 the offset under the root still counts for one per cent, and ln 4 for three.
    assert found.rate * float(field.energy(y0)) == pytest.approx(np.sqrt(2 * DT), rel=0.05)
    assert found.exponent == pytest.approx(0.5, abs=0.05)


def test_an_escape_is_judged_by_what_came_before() -> None:
    report = jo.audit(network(2, jo.Identity()), start(2), EULER, DT, 2000.0, invariants=("energy",))
    assert report.failed is jo.Result.escaped
    steps = np.log(1e12 / np.sum(np.square(start(2)))) / np.log(1 + DT**2)  # to the norm 1e6
    assert report.num_steps == int(steps)
    assert not report.conservative
    assert report.verdict.startswith("Not conservative: the run ended as escaped at t = 30")
    assert "Not conservative" in repr(report)


def test_a_decay_is_judged_by_what_came_before() -> None:
    report = jo.audit(network(3, leak=0.1), start(3), SPLITTING, DT, 2000.0, invariants=("energy", "casimirs"))
    assert report.failed is None
    assert report.num_steps * DT == pytest.approx(np.log(1e12) / 0.2, rel=0.2)  # to 1e4 eps of the energy
    assert report.energy.cause == "its leak of 0.1"
    assert "by its leak of 0.1" in report.verdict


@pytest.fixture(scope="module")
def report() -> jo.Audit:
    return jo.audit(network(3), start(3), SPLITTING, DT, 1000.0, invariants=("energy", "casimirs"))


class TestReport:
    def test_says_who_and_how_long(self, report: jo.Audit) -> None:
        first, second, third, *_ = repr(report).splitlines()
        assert first == "Audit of CurrentRNN(n=3, Tanh()) under PoissonSplitting(order=2), dt = 0.1"
        assert second == "  10,000 steps to t = 1000 in float64"
        assert third == "  Conservative as far as this run can tell: the energy is bounded."
        assert max(map(len, repr(report).splitlines())) <= 120

    def test_has_one_finding_per_invariant(self, report: jo.Audit) -> None:
        assert [finding.name for finding in report.findings] == ["energy", "casimir 1"]
        assert report.casimirs == (report.finding("casimir 1"),)
        assert report.conservative
        assert report.energy.cause is None
        assert pickle.loads(pickle.dumps(report)) == report
        with pytest.raises(jo.JaxoscError, match="'volume', expected one of energy, casimir 1"):
            report.volume  # noqa: B018

    def test_an_odd_size_needs_an_odd_network(self) -> None:
        field = network(3, jo.ReLU())
        report = jo.audit(field, start(3), EULER, DT, 100.0, invariants="oddness")
        assert report.oddness.verdict == "not_applicable"
        assert report.oddness.sentence.endswith("the activation ReLU is not odd.")


REFUSED = {
    "shape": (dict(y0=jnp.ones(3)), "shape (3,), expected (..., 2)"),
    "batch of starts": (dict(y0=jnp.ones((4, 2))), "expected one network and one start"),
    "nan": (dict(y0=jnp.array([1.0, jnp.nan])), "y0 holds 1 NaN"),
    "rest": (dict(y0=jnp.zeros(2)), "the network rests there"),
    "solver": (dict(solver="euler"), "Got the solver 'euler'"),
    "dt": (dict(dt=-0.1), "dt is -0.1"),
    "t1": (dict(t1=0.0), "t1 is 0.0"),
    "short": (dict(t1=0.5), "which is 5 steps, expected 8 to"),
    "long": (dict(t1=1e12), "which is 10,000,000,000,000 steps"),
    "invariant": (dict(invariants=("energy", "charge")), "expected some of energy, casimirs, volume"),
    "first step": (dict(y0=jnp.array([1e5, 1e5]), dt=1e3, t1=1e5), "a start from which the first step already ends"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_one_sentence(name: str) -> None:
    changes, sentence = REFUSED[name]
    given = dict(field=network(2, jo.Identity()), y0=start(2), solver=EULER, dt=DT, t1=2000.0) | changes
    with pytest.raises(jo.JaxoscError) as caught:
        jo.audit(**given)
    assert sentence in str(caught.value)


def test_a_batch_and_a_trace_are_refused() -> None:
    batch = jax.vmap(lambda leak: network(2, leak=leak))(jnp.array([0.1, 0.2]))
    with pytest.raises(jo.JaxoscError, match="one network and one start"):
        jo.audit(batch, start(2), EULER, DT, 10.0)
    with pytest.raises(jo.JaxoscError, match="outside jit, grad and vmap"):
        jax.jit(lambda y0: jo.audit(network(2), y0, EULER, DT, 10.0))(start(2))


class FirstNeuron(AbstractMeasure):
    """y_0, whose windows can be taken by hand."""

    def begin(self, lanes, x):
        return x[0], None

    def proceed(self, lanes, step, before, after, memory):
        return after[0], None


@pytest.mark.parametrize("num_steps", [100, 5003])
def test_windows_hold_what_every_step_gave(num_steps: int) -> None:
    field, y0 = network(2), start(2)
    run = jax.jit(
        lambda windows, n: (
            run_lanes(lanes_of(field), y0[:, None], SPLITTING, (windows,), t0=0.0, dt=DT, num_steps=n).reduced
        )
    )(windows_of(FirstNeuron(), num_steps), jnp.asarray(num_steps, jnp.int32))
    windows = read_windows(run, num_steps)
    states = jo.simulate(field, y0, t1=num_steps * DT, dt=DT, solver=SPLITTING, save_every=1).ys
    change = np.asarray(states[1:, 0] - states[0, 0])
    narrow = int(windows.steps[0])
    by_hand = change[: len(windows.steps) * narrow].reshape(-1, narrow)
    assert np.ptp(change) > 0.5
    assert windows.low[:, 0] == pytest.approx(by_hand.min(axis=1), abs=1e-12)  # rounding of another program
    assert windows.high[:, 0] == pytest.approx(by_hand.max(axis=1), abs=1e-12)
    wide = round(2 * float(windows.middles[0]))
    place = (np.arange(wide) + 0.5) / wide
    bump = (place * (1 - place)) ** 2
    by_hand = change[: len(windows.middles) * wide].reshape(-1, wide) @ bump / bump.sum()
    assert windows.means[:, 0] == pytest.approx(by_hand, abs=1e-12)


def test_kept_steps_are_as_many_for_every_run_and_have_no_stride() -> None:
    for num_steps in (8, 1000, 123_457):
        steps = kept_steps(num_steps)
        assert len(steps) == 1025
        assert (steps[0], steps[-1]) == (0, num_steps)
        assert (np.diff(steps) >= 0).all()
    assert len(set(np.diff(steps))) > 50


class TestCommandLine:
    def test_audits_a_random_network(self, capsys) -> None:
        words = "audit --neurons 2 --gain 3 --solver euler --duration 2000 --only energy"
        assert cli.run(words.split()) == 0
        shown = capsys.readouterr().out
        assert "Audit of CurrentRNN(n=2, Tanh()) under ForwardEuler(), dt = 0.1" in shown
        assert "square-root drift of the energy, by the solver" in shown
        assert "float64" in shown

    def test_audits_a_matrix_that_need_not_be_skew(self, tmp_path, capsys) -> None:
        np.save(tmp_path / "W.npy", np.array([[-0.05, 1.0], [-1.0, -0.05]]))
        words = f"audit {tmp_path / 'W.npy'} --solver euler --duration 400 --only energy --no-x64".split()
        assert cli.run(words) == 0
        shown = capsys.readouterr().out
        assert "the symmetric part of W" in shown
        assert "float32" in shown
        assert jax.config.jax_enable_x64  # the choice holds for the command, not for the session

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            ("audit --neurons 1", "Got --neurons 1, expected at least 2"),
            ("audit --solver eular", "did you mean 'euler'?"),
            ("audit --activation tnh", "did you mean 'tanh'?"),
            ("audit --dt 0", "dt is 0.0"),
            ("audit --duration -1", "t1 is -1.0"),
            ("audit --radius 0", "expected a number > 0"),
            ("audit --only charge", "expected some of energy, casimirs"),
            ("audit nothing.npy", "there is no such file"),
        ],
    )
    def test_refuses_in_one_sentence(self, words: str, sentence: str, capsys) -> None:
        assert cli.run(words.split()) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert sentence in error
