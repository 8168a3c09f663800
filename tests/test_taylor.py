"""Taylor series: coefficients that satisfy the equation, the order, steps by tolerance, and Diffrax's loop."""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest
from problems import BY_NAME, skew

import jaxosc as jo
from jaxosc.solvers import EnergyProjection, Taylor, lanes_of
from jaxosc.solvers.taylor import order_for
from jaxosc.solvers.taylor_series import SLOPES, taylor_coefficients
from jaxosc.weights import DenseSkew

SOLVERS = {"taylor": Taylor()}


@eqx.filter_jit
def _coefficients(lanes, x):
    return jnp.stack(taylor_coefficients(lanes, x, 10, jnp.asarray(1.0, x.dtype)))


def field_of(kind, activation, n=3, **parts):
    return kind(DenseSkew.from_matrix(skew(n, 1)), activation, **parts)


# The rate form is one more product for every activation: one without and one with the squares tell.
@pytest.mark.parametrize(
    ("activation", "kind"),
    [
        *((kind(), jo.CurrentRNN) for kind in SLOPES),
        *(
            pytest.param(kind(), jo.RateRNN, marks=[] if kind in (jo.Tanh, jo.Erf) else pytest.mark.slow)
            for kind in SLOPES
        ),
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
def test_the_polynomial_satisfies_the_equation(activation, kind):
    field = field_of(kind, activation, bias=jnp.array([0.1, 0.2, -0.3]), leak=0.1)
    y0 = jnp.array([1.3, -0.4, 0.7])
    coefficients = np.asarray(_coefficients(lanes_of(field), y0[:, None]))[:, :, 0]
    # A wrong coefficient k would leave 0.02^(k-1) of itself; the terms that are cut leave 1e-17.
    h, k = 0.02, np.arange(11)
    state, velocity = h**k @ coefficients, (k * h ** np.maximum(k - 1.0, 0)) @ coefficients
    assert np.abs(np.asarray(field(0.0, jnp.asarray(state), None)) - velocity).max() < 5e-16
    # Nothing but the linear network has coefficients that fade like those of an exponential.
    size = np.abs(coefficients[10]).max()
    assert size > 1e-7 or isinstance(activation, jo.Identity | jo.Sigmoid)


@pytest.mark.parametrize("problem", ["tanh_pair", "tanh_pair_rate"])
@pytest.mark.parametrize(("order", "counts"), [(4, (48, 96)), (8, (48, 96))])
def test_order(problem, order, counts):
    row = BY_NAME[problem]
    errors = []
    for count in counts:
        run = jo.simulate(
            row.make_field(), np.array(row.y0), t1=row.period, dt=row.period / count, solver=Taylor(order=order)
        )
        errors.append(np.linalg.norm(run.ys[-1] - row.exact(np.array(row.period))))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.3)
    assert errors[1] > 1e-13


class TestAdaptive:
    field = jo.CurrentRNN(DenseSkew.from_matrix(jnp.array([[0.0, 1.3], [-1.3, 0.0]])))
    starts = jnp.asarray(np.random.default_rng(0).standard_normal((70, 2)))
    # The same number of times everywhere: one program for each tolerance, whatever the duration.
    ts = jnp.array([0.0, 0.01, 3.0, 3.1, 19.99, 20.0])
    exact = staticmethod(jax.jit(jax.vmap(lambda y0, ts: jo.oracles.pair_solution(ts, y0, 1.3), in_axes=(0, None))))

    @pytest.mark.parametrize("rtol", [1e-6, 1e-13])
    def test_follows_the_closed_form_at_all_times(self, rtol):
        run = jo.simulate(self.field, self.starts, t1=20.0, ts=self.ts, solver=Taylor(), rtol=rtol)
        error = np.abs(np.asarray(run.ys - self.exact(self.starts, self.ts))).max()
        assert error < 100 * rtol
        assert np.all(run.result == 0)
        assert 0.5 < float(run.stats["lockstep_efficiency"]) <= 1
        assert np.array_equal(run.ys[:, 0], self.starts)

    def test_more_digits_cost_few_steps(self):
        options = dict(t1=20.0, ts=self.ts, solver=Taylor())
        steps = [
            np.mean(jo.simulate(self.field, self.starts, rtol=rtol, **options).stats["num_steps"])
            for rtol in (1e-6, 1e-13)
        ]
        # By the order; at a fixed one they would grow 7.5 times.
        assert steps[1] < 1.5 * steps[0]

    def test_back_in_time(self):
        ends = self.exact(self.starts, self.ts)[:, -1]
        ts = jnp.array([20.0, 19.0, 7.0, 6.9, 0.1, 0.0])
        run = jo.simulate(self.field, ends, t0=20.0, t1=0.0, ts=ts, solver=Taylor(), rtol=1e-13)
        assert np.abs(np.asarray(run.ys - self.exact(self.starts, ts))).max() < 1e-11

    def test_energy_to_rounding_with_the_projection(self):
        run = jo.simulate(self.field, self.starts[:6], t1=300.0, solver=EnergyProjection(Taylor()), rtol=1e-6)
        plain = jo.simulate(self.field, self.starts, t1=300.0, ts=self.ts, solver=Taylor(), rtol=1e-6)
        assert np.abs(np.asarray(run.energy_drift)).max() < 1e-14
        assert np.abs(np.asarray(plain.energy_drift)).max() > 1e-8

    def test_float32(self):
        ts = self.ts / 4
        field = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), self.field)
        run = jo.simulate(field, self.starts.astype(jnp.float32), t1=5.0, ts=ts, solver=Taylor(), rtol=1e-6)
        assert run.ys.dtype == jnp.float32
        assert np.abs(np.asarray(run.ys - self.exact(self.starts, ts))).max() < 5e-5


class TestDiffrax:
    field, y0 = TestAdaptive.field, TestAdaptive.starts[0]

    @functools.partial(jax.jit, static_argnums=0)
    def solve(self, y0, t1):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(self.field),
            Taylor(),
            0.0,
            t1,
            None,
            y0,
            saveat=diffrax.SaveAt(dense=True),
            stepsize_controller=diffrax.PIDController(rtol=1e-11, atol=1e-11),
        )

    def test_dense_output_and_the_way_back(self):
        between = jax.jit(lambda solution, ts: jax.vmap(solution.evaluate)(ts))
        solution = self.solve(self.y0, 20.0)
        ts = jnp.array([0.0, 3.3, 8.0, 12.0, 16.7, 20.0])
        exact = TestAdaptive.exact(TestAdaptive.starts, ts)[0]
        assert np.abs(np.asarray(between(solution, ts) - exact)).max() < 1e-9
        back = self.solve(exact[-1], -20.0)
        assert np.abs(np.asarray(between(back, ts - 20) - exact)).max() < 1e-9

    @pytest.mark.slow
    def test_a_run_in_a_transformation_is_differentiable(self):
        def end(y0):
            return jnp.sum(jo.simulate(self.field, y0, t1=4.0, solver=Taylor(order=8), rtol=1e-10).ys[0] ** 2)

        exact = jax.grad(lambda y0: jnp.sum(jo.oracles.pair_solution(jnp.asarray(4.0), y0, 1.3) ** 2))(self.y0)
        assert np.asarray(jax.grad(end)(self.y0)) == pytest.approx(np.asarray(exact), abs=1e-8)


def test_order_for_a_tolerance():
    assert [order_for(rtol, rtol, np.float64) for rtol in (1e-3, 1e-6, 1e-9, 1e-12, 1e-15)] == [8, 8, 12, 15, 19]
    assert order_for(1e-15, 1e-15, np.float32) == 9


@pytest.mark.parametrize("options", [dict(rtol=1e-6), dict(dt=0.1)], ids=["adaptive", "fixed"])
def test_refuses_what_has_no_series(options):
    with pytest.raises(jo.JaxoscError, match=r"Got HardTanh\(\) with Taylor, expected an activation whose series"):
        jo.simulate(field_of(jo.CurrentRNN, jo.HardTanh()), jnp.ones(3), t1=1.0, solver=Taylor(), **options)
    driven = field_of(jo.CurrentRNN, jo.Tanh(), drive=lambda t: jnp.full(3, jnp.sin(t)))
    with pytest.raises(jo.JaxoscError, match="Got a field with a drive in Taylor"):
        jo.simulate(driven, jnp.ones(3), t1=1.0, solver=Taylor(), **options)


def test_refuses_other_orders():
    with pytest.raises(jo.JaxoscError, match=r"Got Taylor\(order=3\), expected a whole number from 4 to 30"):
        Taylor(order=3)
    assert repr(Taylor()) == "Taylor()" and repr(Taylor(order=9)) == "Taylor(order=9)"


def test_events_are_as_precise_as_the_steps():
    """The polynomial of a step of 0.4 is its dense output: a quarter of the period to rounding."""
    crossing = diffrax.Event(lambda t, y, args, **_: y[0], optimistix.Newton(1e-14, 1e-14), direction=True)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(BY_NAME["tanh_pair"].make_field()),
        Taylor(24),
        0.0,
        50.0,
        0.4,
        jnp.array([-1.3, 0.0]),
        event=crossing,
        stepsize_controller=diffrax.ConstantStepSize(),
    )
    quarter = float(jo.oracles.pair_period(np.log(np.cosh(1.3)), 1.0)) / 4
    assert solution.result == diffrax.RESULTS.event_occurred
    assert float(solution.ts[-1]) == pytest.approx(quarter, abs=1e-13)
    assert solution.ys[-1] == pytest.approx([0.0, 1.3], abs=1e-13)
