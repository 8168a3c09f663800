"""Adaptive steps on lanes: those of Diffrax, members that do not feel their company, failures that stay alone."""

import operator

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import skew

import jaxosc as jo
from jaxosc.simulate.adaptive_methods import method_of
from jaxosc.solvers import EnergyProjection, Taylor
from jaxosc.weights import DenseSkew, Unconstrained


def networks(count, n, gains=None):
    """Weights of their own, (count,), of log-uniform gains."""
    weights = jax.vmap(lambda key: DenseSkew.random(key, n))(jax.random.split(jax.random.key(1), count))
    gains = np.exp(np.random.default_rng(2).uniform(np.log(0.1), np.log(30), count)) if gains is None else gains
    return jo.CurrentRNN(weights.scaled(jnp.asarray(gains)))


def by_diffrax(field, y0, solver, rtol, ts, t0, t1):
    def one(y0):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            solver,
            t0,
            t1,
            np.sign(t1 - t0) * 0.01,
            y0,
            saveat=diffrax.SaveAt(ts=ts),
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol),
        )

    return jax.vmap(one)(y0)


@pytest.mark.parametrize(
    ("solver", "rtol"), [(diffrax.Tsit5(), 1e-6), (diffrax.Dopri8(), 1e-9)], ids=["tsit5", "dopri8"]
)
@pytest.mark.parametrize("times", [(0.0, 20.0), pytest.param((20.0, 0.0), marks=pytest.mark.slow)], ids=["on", "back"])
def test_runge_kutta_takes_the_steps_of_diffrax(solver, rtol, times):
    # An activation of the user's own: this is the loop for it.
    field = jo.CurrentRNN(DenseSkew.from_matrix(skew(4, 1)), jo.Elementwise(lambda y: y / (1 + y**4) ** 0.25))
    y0 = jnp.asarray(np.random.default_rng(3).standard_normal((5, 4)))
    ts = jnp.linspace(*times, 8)
    ours = jo.simulate(field, y0, t0=times[0], t1=times[1], ts=ts, dt=0.01, solver=solver, rtol=rtol)
    theirs = by_diffrax(field, y0, solver, rtol, ts, *times)
    assert np.abs(np.asarray(ours.stats["num_steps"] - theirs.stats["num_steps"])).max() <= 1
    # Between the same steps the same polynomial: apart by what rounding makes of step sizes.
    assert np.abs(np.asarray(ours.ys - theirs.ys)).max() < 20 * rtol
    assert np.abs(np.asarray(ours.ys[:, -1] - ours.ys[:, 0])).max() > 0.5


CROWD = dict(t1=1.0, rtol=1e-6)


@pytest.fixture(scope="module")
def crowd():
    """1,024 members of mixed gain, which are 16 chunks, and their run by Taylor."""
    field, y0 = networks(1024, 8), jnp.asarray(np.random.default_rng(0).standard_normal((1024, 8)))
    return field, y0, jo.simulate(field, y0, solver=Taylor(), **CROWD)


@pytest.mark.parametrize("solver", [Taylor(), pytest.param(diffrax.Tsit5(), marks=pytest.mark.slow)], ids=repr)
def test_company_does_not_show(crowd, solver):
    field, y0, together = crowd
    if not isinstance(solver, Taylor):
        together = jo.simulate(field, y0, solver=solver, **CROWD)
    steps = np.asarray(together.stats["num_steps"])
    assert steps.max() > 20 * steps.min()
    for k in (0, 477, 1023):
        alone = jo.simulate(
            jo.CurrentRNN(jax.tree.map(operator.itemgetter(k), field.weight)), y0[k], solver=solver, **CROWD
        )
        assert np.abs(np.asarray(alone.ys - together.ys[k])).max() < 1e-13
        assert int(alone.stats["num_steps"]) == steps[k]


def test_efficiency_is_the_share_of_turns_that_were_steps(crowd):
    # One chunk: everybody waits for the slowest.
    field, y0 = networks(40, 8), jnp.asarray(np.random.default_rng(0).standard_normal((40, 8)))
    one = jo.simulate(field, y0, solver=Taylor(), **CROWD).stats
    steps = np.asarray(one["num_steps"])
    assert float(one["lockstep_efficiency"]) == pytest.approx(steps.sum() / (steps.max() * 40))
    # Many chunks of members in mixed order: sorted by the size of their weights, they wait for little.
    many = crowd[2].stats
    steps = np.asarray(many["num_steps"])
    unsorted = steps.sum() / (64 * steps.reshape(-1, 64).max(axis=1).sum())
    assert float(many["lockstep_efficiency"]) > max(0.6, 2.5 * unsorted)


UNTIL_THE_END = dict(solver=Taylor(), rtol=1e-6, escape_norm=1e300)


class TestFailures:
    # y' = y in the first coordinate of one network, an oscillation in the others.
    growing = jnp.array([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [-1.0, 0.0]]])
    field = jo.CurrentRNN(Unconstrained(growing), jo.Identity())
    y0 = jnp.ones((2, 2))

    @pytest.mark.parametrize("solver", [Taylor(), diffrax.Tsit5()], ids=repr)
    def test_who_leaves_stays_where_it_was(self, solver):
        ts = jnp.array([1.0, 2.0, 9.0])
        run = jo.simulate(self.field, self.y0, t1=9.0, ts=ts, solver=solver, rtol=1e-9, escape_norm=20.0)
        assert [jo.Result(int(code)) for code in run.result] == [jo.Result.escaped, jo.Result.successful]
        assert run.ys[0, :2, 0] == pytest.approx(np.exp([1.0, 2.0]), rel=1e-6)
        assert np.exp(2.0) < run.ys[0, 2, 0] < 20.0
        assert run.ys[1, :, 0] == pytest.approx(np.cos(ts) + np.sin(ts), abs=1e-6)

    def test_too_few_steps(self):
        run = jo.simulate(self.field, self.y0, t1=9.0, solver=Taylor(order=4), rtol=1e-9, max_steps=3)
        assert [int(code) for code in run.result] == [jo.Result.max_steps_reached] * 2
        assert [int(steps) for steps in run.stats["num_steps"]] == [3, 3]

    def test_too_few_steps_of_a_single_run_raise(self):
        field = jo.CurrentRNN(DenseSkew.from_matrix(skew(2, 0)))
        with pytest.raises(jo.JaxoscError, match="max_steps_reached"):
            jo.simulate(field, jnp.ones(2), t1=900.0, rtol=1e-9, max_steps=3, solver=Taylor(order=4))

    def test_what_becomes_no_number(self):
        run = jo.simulate(self.field, self.y0, t1=2000.0, **UNTIL_THE_END)
        assert [jo.Result(int(code)) for code in run.result] == [jo.Result.non_finite, jo.Result.successful]
        assert np.all(np.isfinite(run.ys))


def test_an_equilibrium_is_one_step():
    run = jo.simulate(TestFailures.field, jnp.zeros((2, 2)), t1=50.0, **UNTIL_THE_END)
    assert np.all(run.stats["num_steps"] == 1) and not np.any(run.ys)


@pytest.mark.slow
def test_runge_kutta_with_projection_keeps_the_energy():
    field = jo.CurrentRNN(DenseSkew.from_matrix(skew(5, 1)))
    y0 = jnp.asarray(np.random.default_rng(3).standard_normal((6, 5)))
    run = jo.simulate(field, y0, t1=100.0, solver=EnergyProjection(diffrax.Dopri5()), rtol=1e-7)
    assert np.abs(np.asarray(run.energy_drift)).max() < 1e-14


def test_a_first_step_of_ones_own_and_an_implicit_solver_still_work():
    field = jo.CurrentRNN(DenseSkew.from_matrix(skew(2, 1)))
    options = dict(t1=5.0, rtol=1e-6)
    chosen = jo.simulate(field, jnp.ones(2), solver=diffrax.Tsit5(), **options)
    given = jo.simulate(field, jnp.ones(2), solver=diffrax.Tsit5(), dt=1e-3, **options)
    implicit = jo.simulate(field, jnp.ones(2), solver=diffrax.Kvaerno5(), **options)
    assert int(given.stats["num_steps"]) > int(chosen.stats["num_steps"])
    for other in (given, implicit):
        assert np.abs(np.asarray(other.ys - chosen.ys)).max() < 1e-4
    assert 0 < float(implicit.stats["lockstep_efficiency"]) <= 1


def test_a_wrapped_solver_is_left_to_diffrax():
    # Diffrax's wrappers count as instances of what they wrap, but have no tableau.
    solver = diffrax.HalfSolver(diffrax.Heun())
    assert method_of(solver, 1e-6, 1e-6, np.float64) is None
    field, y0 = jo.CurrentRNN(DenseSkew.from_matrix(jnp.array([[0.0, 1.3], [-1.3, 0.0]]))), jnp.array([0.9, -0.4])
    run = jo.simulate(field, y0, t1=2.0, dt=0.02, solver=solver)
    exact = jo.oracles.pair_solution(jnp.asarray(2.0), y0, 1.3)
    # Of second order: (1.3 dt)^2 = 7e-4.
    assert np.asarray(run.ys[0]) == pytest.approx(np.asarray(exact), abs=3e-4)


class TestOptions:
    field, y0 = jo.CurrentRNN(DenseSkew.from_matrix(skew(2, 1))), jnp.ones(2)

    def test_a_single_time_of_interest(self):
        run = jo.simulate(self.field, self.y0, t1=5.0, ts=3.0, rtol=1e-9, solver=Taylor(order=8))
        alone = jo.simulate(self.field, self.y0, t1=3.0, rtol=1e-9, solver=Taylor(order=8))
        assert run.ys.shape == (1, 2)
        assert np.abs(np.asarray(run.ys - alone.ys)).max() < 1e-8

    @pytest.mark.parametrize(
        "solver", [None, jo.ForwardEuler(), EnergyProjection(jo.solvers.PoissonSplitting(4))], ids=repr
    )
    def test_refuses_solvers_without_an_error_estimate(self, solver):
        with pytest.raises(jo.JaxoscError, match="expected a solver that estimates its error"):
            jo.simulate(self.field, self.y0, t1=1.0, rtol=1e-6, solver=solver)

    @pytest.mark.parametrize("most", [0, -1, 10**12])
    def test_refuses_other_numbers_of_steps(self, most):
        with pytest.raises(jo.JaxoscError, match=r"Got max_steps = .*, expected a whole number from 1"):
            jo.simulate(self.field, self.y0, t1=1.0, rtol=1e-6, max_steps=most, solver=Taylor())

    def test_refuses_a_tolerance_for_each_member(self):
        with pytest.raises(jo.JaxoscError, match=r"Got rtol of shape \(2,\), expected one number"):
            jo.simulate(self.field, self.y0, t1=1.0, rtol=jnp.array([1e-6, 1e-7]), solver=Taylor())
