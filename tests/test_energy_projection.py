"""Energy projection: the order of what it wraps, the energy to rounding, the Casimirs untouched."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import BY_NAME, skew

import jaxosc as jo
from jaxosc.fields import casimir_vectors
from jaxosc.solvers import EnergyProjection
from jaxosc.weights import DenseSkew, Symmetrizable

SOLVERS = {"energy_projection": EnergyProjection(diffrax.Tsit5())}
EPS = np.finfo(float).eps


def symmetrizable(n: int) -> jo.CurrentRNN:
    weight = Symmetrizable.random(jax.random.key(2), n)
    return jo.CurrentRNN(weight.scaled(1 / jnp.linalg.norm(weight.matrix(), 2)), jo.Arctan())


FIELDS = {
    "current": lambda: jo.CurrentRNN(DenseSkew.from_matrix(skew(5, 1))),
    "rate": lambda: jo.RateRNN(DenseSkew.from_matrix(skew(4, 1)), bias=jnp.array([0.1, -0.2, 0.3, 0.4])),
    "bias": lambda: jo.CurrentRNN(DenseSkew.from_matrix(skew(4, 1)), bias=jnp.array([0.1, -0.2, 0.3, 0.4])),
    "symmetrizable": lambda: symmetrizable(5),
    "linear": lambda: jo.CurrentRNN(DenseSkew.from_matrix(skew(6, 1)), jo.Identity()),
}
every_field = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in ("bias", "linear") else []) for name in FIELDS]
)


def starts(field, members=6):
    return jnp.asarray(np.random.default_rng(3).standard_normal((members, field.size)))


@pytest.mark.parametrize(("solver", "order", "counts"), [(diffrax.Heun(), 2, (32, 64)), (diffrax.Tsit5(), 5, (12, 24))])
@pytest.mark.parametrize(
    "problem", ["tanh_pair", pytest.param("tanh_pair_rate", marks=pytest.mark.slow), "linear_three"]
)
def test_order_is_that_of_the_solver_and_the_error_no_larger(problem, solver, order, counts):
    row = BY_NAME[problem]
    field, t1 = row.make_field(), 0.6 * row.period

    def error(solver, count):
        run = jo.simulate(field, np.array(row.y0), t1=t1, dt=t1 / count, solver=solver)
        return np.linalg.norm(run.ys[-1] - row.exact(np.array(t1)))

    errors = [error(EnergyProjection(solver), count) for count in counts]
    assert np.log2(errors[0] / errors[1]) > order - 0.25
    assert errors[1] < 1.1 * error(solver, counts[1])


@every_field
def test_energy_stays_at_rounding_and_casimirs_with_it(name):
    field = FIELDS[name]()
    y0 = starts(field)
    run = jo.simulate(field, y0, t1=200.0, dt=0.25, solver=EnergyProjection(diffrax.Tsit5()), save_every=1)
    energies = np.asarray(field.energy(run.ys))
    # Each step starts anew from the energy of the start: nothing adds up. What is left is the rounding of the terms,
    # which with a bias are larger than their sum.
    terms = np.abs(energies) + np.asarray(jnp.sum(field.activation.potential(run.ys), axis=-1))
    assert (np.abs(energies - energies[:, :1]) / terms).max() < 20 * EPS
    assert np.abs(np.asarray(run.ys[:, -1] - y0)).max() > 0.1
    plain = np.asarray(field.energy(jo.simulate(field, y0, t1=200.0, dt=0.25, solver=diffrax.Tsit5()).ys[:, -1]))
    assert np.abs(plain / energies[:, 0] - 1).max() > 1e-9
    if len(casimir_vectors(field)) and name != "rate":
        values = np.asarray(field.casimirs(run.ys))
        assert np.abs(values - values[:, :1]).max() < 1e-13


def test_a_coarse_step_leaves_the_third_power():
    field = FIELDS["current"]()
    y0 = starts(field)
    worst = {}
    for dt, save_every in ((1.0, 1), (0.5, 2)):
        # The same times in both, which is one program.
        options = dict(solver=EnergyProjection(diffrax.Heun()), save_every=save_every)
        run = jo.simulate(field, y0, t1=20.0, dt=dt, **options)
        energies = np.asarray(field.energy(run.ys))
        worst[dt] = np.abs(energies / energies[:, :1] - 1).max()
    # Heun loses O(dt^4) of the energy in a step, at dt = 0.5 some per cent: its third power falls by 2^12.
    assert worst[0.5] < worst[1.0] / 200 < 1e-2


def test_in_diffrax_it_is_the_same_and_takes_adaptive_steps():
    field = FIELDS["current"]()
    y0 = starts(field)[0]
    solver = EnergyProjection(diffrax.Dopri8())
    options = dict(terms=diffrax.ODETerm(field), solver=solver, t0=0.0, t1=30.0, y0=y0, max_steps=4096)
    fixed = diffrax.diffeqsolve(dt0=0.25, **options)
    own = jo.simulate(field, y0, t1=30.0, dt=0.25, solver=solver)
    np.testing.assert_allclose(fixed.ys[-1], own.ys[-1], rtol=0, atol=1e-13)
    controller = diffrax.PIDController(rtol=1e-6, atol=1e-6)
    adaptive = diffrax.diffeqsolve(dt0=0.1, stepsize_controller=controller, **options)
    assert abs(field.energy(adaptive.ys[-1]) / field.energy(y0) - 1) < 20 * EPS
    assert 5 < adaptive.stats["num_steps"] < 120
    through = jo.simulate(field, y0, t1=30.0, rtol=1e-6, solver=solver)
    np.testing.assert_allclose(through.ys[-1], own.ys[-1], rtol=0, atol=1e-4)


def test_an_equilibrium_stays():
    field = FIELDS["current"]()
    rest = jnp.asarray(3.0 * casimir_vectors(field)[0])  # tanh of it is not in the kernel, zero is
    for y0 in (jnp.zeros(5), rest):
        run = jo.simulate(field, y0, t1=5.0, dt=0.5, solver=EnergyProjection(diffrax.Tsit5()))
        assert np.isfinite(run.ys).all()
    np.testing.assert_array_equal(
        jo.simulate(field, jnp.zeros(5), t1=5.0, dt=0.5, solver=SOLVERS["energy_projection"]).ys, 0
    )


def test_gradient_agrees_with_finite_differences():
    field = FIELDS["current"]()
    y0 = starts(field)[0]

    @jax.jit
    @jax.value_and_grad
    def end(y0):
        return jnp.sum(jo.simulate(field, y0, t1=5.0, dt=0.25, solver=EnergyProjection(diffrax.Heun())).ys[-1] ** 2)

    direction, step = jnp.ones(5), 1e-5
    _, gradient = end(y0)
    (ahead, _), (behind, _) = end(y0 + step * direction), end(y0 - step * direction)
    difference = (ahead - behind) / (2 * step)
    assert float(gradient @ direction) == pytest.approx(float(difference), rel=1e-7)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda w: jo.CurrentRNN(w, leak=0.1), "a leak"),
        (lambda w: jo.CurrentRNN(w, drive=lambda t: jnp.ones(3)), "a drive"),
        (lambda w: jo.CurrentRNN(jo.weights.Unconstrained(jnp.ones((3, 3)))), "a weight that is not skew"),
        (lambda w: jo.CurrentRNN(w, bias=jnp.ones(3)), "a bias outside of the range of W"),
    ],
)
def test_a_network_without_a_conserved_energy_is_refused(make, what):
    field = make(DenseSkew.from_matrix(skew(3, 1)))
    with pytest.raises(jo.JaxoscError, match=f"Got {what} in EnergyProjection, expected"):
        jo.simulate(field, jnp.ones(3), t1=1.0, dt=0.1, solver=EnergyProjection())


def test_what_is_seen_only_in_the_run_marks_its_members():
    weight, y0 = DenseSkew.from_matrix(skew(3, 1)), jnp.ones(3)
    inside = weight.matvec(jnp.array([0.1, 0.2, -0.3]))

    @jax.jit
    def result(leak, bias):
        field = jo.CurrentRNN(weight, leak=leak, bias=bias)
        return jo.simulate(field, y0, t1=1.0, dt=0.1, solver=EnergyProjection(), throw=False).result

    assert result(jnp.array(0.0), inside) == jo.Result.successful
    assert result(jnp.array(0.1), inside) == jo.Result.non_finite
    assert result(jnp.array(0.0), jnp.ones(3)) == jo.Result.non_finite


def test_what_it_says_and_takes():
    assert repr(EnergyProjection()) == "EnergyProjection(Dopri8)"
    assert EnergyProjection(diffrax.Tsit5()).order(None) == 5
    with pytest.raises(jo.JaxoscError, match="expected a Diffrax solver"):
        EnergyProjection("dopri8")
