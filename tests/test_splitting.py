"""What Poisson splitting is made of: groups and blocks against the plain sweep, input, and the two ways to sum."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import skew
from test_solvers import bounded_field, diffrax_final, measured_orders, random_start, trends

import jaxosc as jo
from jaxosc.solvers import PoissonSplitting, lanes_of
from jaxosc.solvers.half_sweeps import HalfSweeps
from jaxosc.weights import (
    BandedSkew,
    Bipartite,
    Circulant,
    DenseSkew,
    RotationBlocks,
    SparseSkew,
    Symmetrizable,
    Unconstrained,
)

KEY = jax.random.key(0)

GROUPED = {
    "bipartite": Bipartite.random(KEY, 7, p=3),
    "band": BandedSkew.random(KEY, 9, bandwidth=2),
    "blocks": RotationBlocks.random(KEY, 5),
    "sparse": SparseSkew.random(KEY, 12, degree=3),
    "circulant": Circulant.random(KEY, 8),
    "symmetrizable": Symmetrizable.from_energy_weights(BandedSkew.random(KEY, 5), [0.5, 1.0, 2.0, 1.5, 0.7]),
}


class TestGroups:
    @pytest.mark.parametrize("name", GROUPED)
    def test_never_meet(self, name: str) -> None:
        weight = GROUPED[name]
        matrix = np.asarray(weight.matrix())
        assert sorted(neuron for group in weight.colours for neuron in group) == list(range(weight.size))
        for group in weight.colours:
            assert not matrix[np.ix_(group, group)].any()
        assert len(weight.colours) < weight.size

    @pytest.mark.parametrize("form", [jo.CurrentRNN, pytest.param(jo.RateRNN, marks=pytest.mark.slow)])
    @pytest.mark.parametrize("name", GROUPED)
    def test_equal_the_sweep_neuron_by_neuron(self, name: str, form: type) -> None:
        """In the order of the groups, which a dense weight of the permuted matrix sweeps one by one."""
        weight = GROUPED[name]
        order = [neuron for group in weight.colours for neuron in group]
        y0, bias = random_start(weight.size, 1), random_start(weight.size, 2) / 3
        options = dict(t1=4.0, dt=0.2, solver=PoissonSplitting(4))
        grouped = jo.simulate(form(weight, bias=bias), y0, **options).ys[-1]
        plain = form(np.asarray(weight.matrix())[np.ix_(order, order)], bias=bias[np.array(order)])
        single = jo.simulate(plain, y0[np.array(order)], **options).ys[-1]
        np.testing.assert_allclose(grouped[np.array(order)], single, atol=1e-13)
        assert np.abs(grouped - y0).max() > 0.3

    def test_bipartite_is_the_leapfrog(self) -> None:
        weight, dt = GROUPED["bipartite"], 0.25
        coupling, x = np.asarray(weight.coupling), np.asarray(random_start(7, 3))
        y0, (first, second) = x, np.split(x, [3])
        for _ in range(20):
            second = second - dt / 2 * coupling.T @ np.tanh(first)
            first = first + dt * coupling @ np.tanh(second)
            second = second - dt / 2 * coupling.T @ np.tanh(first)
        run = jo.simulate(jo.CurrentRNN(weight), y0, t1=5.0, dt=dt)
        np.testing.assert_allclose(run.ys[-1], np.concatenate([first, second]), atol=1e-13)


MORE_CASES = [(8, jo.CurrentRNN), (32, jo.RateRNN)]


class Apart(Unconstrained):
    """Neurons that meet nobody: one group."""

    @property
    def colours(self):
        return (tuple(range(self.size)),)


class TestOneBlock:
    """The first block is the last one, too: whatever acts on it or from outside acts once."""

    @pytest.mark.parametrize("form", [jo.CurrentRNN, jo.RateRNN])
    def test_flow_from_outside_is_exact(self, form: type) -> None:
        bias, leak, y0 = jnp.array([0.7, -0.2, 0.1]), 0.4, jnp.array([0.3, 1.0, -2.0])
        field = form(Apart(jnp.zeros((3, 3))), bias=bias, leak=leak)
        inflow = bias if form is jo.CurrentRNN else jnp.tanh(bias)
        exact = inflow / leak + (y0 - inflow / leak) * jnp.exp(-leak * 2.0)
        for order in (1, 4):
            run = jo.simulate(field, y0, t1=2.0, dt=0.01, solver=PoissonSplitting(order))
            # In the rate form the bias acts within sigma, and the leak is split from it.
            tolerance = 1e-13 if form is jo.CurrentRNN else {1: 5e-3, 4: 1e-9}[order]
            np.testing.assert_allclose(run.ys[-1], exact, atol=tolerance)

    def test_visits_are_not_joined_with_themselves(self) -> None:
        (block,) = HalfSweeps(lanes_of(jo.RateRNN(Apart(jnp.zeros((3, 3))))), 2).blocks
        assert block.width == 3
        run = jo.simulate(jo.RateRNN(Apart(jnp.zeros((3, 3))), bias=jnp.ones(3)), jnp.zeros(3), t1=2.0, dt=0.1)
        np.testing.assert_allclose(run.ys[-1], 2.0 * np.tanh(np.ones(3)), rtol=1e-13)


class TestBlocks:
    @pytest.mark.parametrize("n", [pytest.param(12, marks=pytest.mark.slow), 21])
    @pytest.mark.parametrize("form", [jo.CurrentRNN, jo.RateRNN])
    def test_equal_the_sweep_neuron_by_neuron(self, n: int, form: type) -> None:
        """Dense blocks, with a ragged one at the end, against a sweep in NumPy; own and shared weights."""
        matrix, dt = skew(n, 4), 0.2
        y0, bias = np.asarray(random_start(n, 5)), np.asarray(random_start(n, 6)) / 5
        x = y0.copy()
        for _ in range(10):
            for i in [*range(n), *reversed(range(n))]:
                if form is jo.RateRNN:
                    x[i] += dt / 2 * np.tanh(matrix[i] @ x + bias[i])
                else:
                    x = x + dt / 2 * matrix[:, i] * np.tanh(x[i])
        field = form(DenseSkew.from_matrix(matrix), bias=bias if form is jo.RateRNN else None)
        run = jo.simulate(field, y0, t1=2.0, dt=dt)
        np.testing.assert_allclose(run.ys[-1], x, atol=1e-13)
        assert np.abs(x - y0).max() > 0.3
        own = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), field)
        np.testing.assert_allclose(jo.simulate(own, y0, t1=2.0, dt=dt).ys[1, -1], x, atol=1e-13)

    @pytest.mark.parametrize("order", [6, *(pytest.param(order, marks=pytest.mark.slow) for order in (1, 2, 4, 8))])
    @pytest.mark.parametrize(
        ("n", "form"),
        [(8, jo.RateRNN), (32, jo.CurrentRNN), *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE_CASES)],
    )
    def test_order_with_everything(self, n: int, form: type, order: int) -> None:
        """Nonlinear, with bias, skew or symmetrizable, in small and large networks: the declared order."""
        dense = DenseSkew.from_matrix(skew(n, 7))
        d = np.linspace(0.7, 1.4, n)
        symmetrizable = (n == 8) == (form is jo.RateRNN)
        weight = Symmetrizable.from_energy_weights(dense, d) if symmetrizable else dense
        # Eight starts: the errors of one alone can nearly cancel at some step size, and its slope is then off.
        field, y0 = form(weight, bias=random_start(n, 8) / 4), random_start(n, 9, 8) / 2
        counts = {1: (100, 200), 2: (40, 80), 4: (16, 24), 6: (10, 15), 8: (12, 16)}[order]

        def final(steps: int, order: int) -> jnp.ndarray:
            return jo.simulate(field, y0, t1=4.0, dt=4 / steps, solver=PoissonSplitting(order)).ys[:, -1]

        # Order 8 with many more steps: an error 10^-6 of the ones that are measured.
        exact = final(100, 8)
        errors = [float(jnp.linalg.norm(final(steps, order) - exact)) for steps in counts]
        assert measured_orders(errors, counts) == pytest.approx(order, abs=0.15)
        assert errors[0] < 0.05 * np.linalg.norm(exact - y0)


def on_lattice(x: jnp.ndarray) -> jnp.ndarray:
    """The nearest point of the lattice of the float64 mode."""
    return jnp.round(x * 2.0**40) / 2.0**40


def input_at(t):
    """A drive with two harmonics, different for each neuron."""
    return jnp.array([0.4, -0.3, 0.2]) * jnp.cos(1.3 * t + jnp.arange(3.0)) + 0.1 * jnp.sin(3 * t)


class TestDrive:
    @pytest.mark.parametrize("form", [jo.RateRNN, pytest.param(jo.CurrentRNN, marks=pytest.mark.slow)])
    @pytest.mark.parametrize(
        "order", [4, pytest.param(2, marks=pytest.mark.slow), pytest.param(6, marks=pytest.mark.slow)]
    )
    def test_order(self, form: type, order: int) -> None:
        """With input, bias and leak; the reference is Diffrax's own, which knows nothing of our lanes."""
        field = form(DenseSkew.from_matrix(skew(3, 10)), bias=[0.1, 0.2, -0.1], leak=0.1, drive=input_at)
        y0 = random_start(3, 11)
        exact = jo.simulate(field, y0, t0=1.0, t1=5.0, rtol=1e-13, atol=1e-14, solver=diffrax.Dopri8()).ys[-1]
        counts = {2: (40, 80), 4: (16, 24), 6: (20, 30)}[order]
        runs = [jo.simulate(field, y0, t0=1.0, t1=5.0, dt=4 / k, solver=PoissonSplitting(order)) for k in counts]
        errors = [float(jnp.linalg.norm(run.ys[-1] - exact)) for run in runs]
        assert measured_orders(errors, counts) == pytest.approx(order, abs=0.15)
        undriven = jo.simulate(form(field.weight, bias=field.bias, leak=0.1), y0, t0=1.0, t1=5.0, dt=0.1).ys[-1]
        assert float(jnp.abs(undriven - exact).max()) > 0.1

    @pytest.mark.parametrize("form", [jo.CurrentRNN, jo.RateRNN])
    def test_engine_equals_diffrax_and_runs_back(self, form: type) -> None:
        field, y0 = form(DenseSkew.from_matrix(skew(3, 10)), leak=0.1, drive=input_at), random_start(3, 11)
        there = jo.simulate(field, y0, t1=5.0, dt=0.05, solver=PoissonSplitting(4)).ys[-1]
        np.testing.assert_allclose(there, diffrax_final(field, PoissonSplitting(4), y0, 5.0, 100), atol=1e-12)
        back = jo.simulate(field, there, t0=5.0, t1=0.0, dt=0.05, solver=PoissonSplitting(4)).ys[-1]
        np.testing.assert_allclose(back, y0, atol=1e-13)

    @pytest.mark.slow
    def test_runge_kutta_and_euler_know_the_time(self) -> None:
        field, y0 = jo.CurrentRNN(DenseSkew.from_matrix(skew(3, 10)), drive=input_at), random_start(3, 11)
        for solver in (diffrax.Dopri8(), jo.ForwardEuler()):
            ours = jo.simulate(field, y0, t1=5.0, dt=0.05, solver=solver).ys[-1]
            np.testing.assert_allclose(ours, diffrax_final(field, solver, y0, 5.0, 100), atol=1e-12)

    def test_leak_decays_exactly(self) -> None:
        """Without coupling to speak of, x' = b - leak x is solved by its own flow, whatever dt is."""
        field = jo.CurrentRNN(1e-300 * skew(2, 1), bias=[0.3, -1.0], leak=0.5)
        run = jo.simulate(field, [2.0, 1.0], t1=6.0, dt=3.0)
        limit = np.array([0.6, -2.0])
        np.testing.assert_allclose(run.ys[-1], limit + (np.array([2.0, 1.0]) - limit) * np.exp(-3.0), rtol=1e-13)

    @pytest.mark.parametrize(
        ("drive", "words"), [(3.0, "expected a function of the time"), (lambda t: jnp.ones(2), r"shape \(2,\)")]
    )
    def test_refuses(self, drive, words: str) -> None:
        with pytest.raises(jo.JaxoscError, match=words):
            jo.CurrentRNN(skew(3, 1), drive=drive)


class TestSums:
    @pytest.mark.slow
    def test_compensated_float32_loses_twenty_times_less(self) -> None:
        """2 * 10^5 steps in float32, against the same steps in float64 with the very same matrix.

        Regular orbits, whose end differs from the float64 one by what rounding did to energy and phase.
        """
        narrow = jo.CurrentRNN(DenseSkew.from_matrix(skew(8, 18).astype(np.float32)))
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), narrow)
        y0 = (0.3 * random_start(8, 19, 4)).astype(jnp.float32)
        options = dict(t1=2e4, dt=0.1, save_every=1000)
        exact = wide.energy(jo.simulate(wide, y0.astype(jnp.float64), **options).ys)

        def loss(**mode: bool) -> float:
            run = jo.simulate(narrow, y0, solver=PoissonSplitting(2, **mode), **options)
            errors = wide.energy(run.ys.astype(jnp.float64)) / exact - 1
            slopes, _ = trends(np.asarray(errors)[:, 1:])
            return float(np.sqrt(np.mean(slopes**2)))

        assert loss() > 20 * loss(compensated=True)

    @pytest.mark.parametrize(("n", "steps"), [(8, 20_000), pytest.param(32, 1_000_000, marks=pytest.mark.slow)])
    def test_lattice_returns_to_the_very_bits(self, n: int, steps: int) -> None:
        """In chaos, where plain sums come back anywhere."""
        field = jo.CurrentRNN(DenseSkew.from_matrix(skew(n, 5)))
        y0 = on_lattice(2 * random_start(n, 1))
        arrived = {}
        for name, solver in (("lattice", PoissonSplitting(2, lattice=True)), ("plain", PoissonSplitting(2))):
            there = jo.simulate(field, y0, t1=0.1 * steps, dt=0.1, solver=solver)
            arrived[name] = jo.simulate(field, there.ys[-1], t0=0.1 * steps, t1=0.0, dt=0.1, solver=solver).ys[-1]
            assert float(jnp.abs(there.ys[-1] - y0).max()) > 0.3
            assert abs(float(there.energy_drift)) < 1e-3
        np.testing.assert_array_equal(arrived["lattice"], y0)
        assert float(jnp.abs(arrived["plain"] - y0).max()) > 1e-3

    @pytest.mark.parametrize("form", [jo.CurrentRNN, jo.RateRNN])
    @pytest.mark.parametrize("groups", [True, False])
    def test_lattice_for_groups_large_networks_and_both_forms(self, form: type, groups: bool) -> None:
        weight = GROUPED["bipartite"] if groups else DenseSkew.from_matrix(skew(12, 2))
        field, y0 = form(weight, bias=jnp.full(weight.size, 0.2)), on_lattice(random_start(weight.size, 3))
        solver = PoissonSplitting(4, lattice=True)
        there = jo.simulate(field, y0, t1=50.0, dt=0.1, solver=solver).ys[-1]
        back = jo.simulate(field, there, t0=50.0, t1=0.0, dt=0.1, solver=solver).ys[-1]
        np.testing.assert_array_equal(back, y0)
        plain = jo.simulate(field, y0, t1=50.0, dt=0.1, solver=PoissonSplitting(4)).ys[-1]
        np.testing.assert_allclose(there, plain, atol=1e-6)  # 500 steps of roundings of 2^-41, amplified a little
        assert float(jnp.abs(there - plain).max()) > 0

    def test_modes_refuse(self) -> None:
        with pytest.raises(jo.JaxoscError, match="at most one"):
            PoissonSplitting(2, compensated=True, lattice=True)
        lattice = PoissonSplitting(2, lattice=True)
        for field, words in (
            (jo.CurrentRNN(skew(3, 1), leak=0.1), "a leak"),
            (jo.CurrentRNN(skew(3, 1), drive=input_at), "a drive"),
            (jo.CurrentRNN(skew(3, 1) + np.eye(3)), "a weight with a diagonal"),
        ):
            with pytest.raises(jo.JaxoscError, match=words):
                jo.simulate(field, np.ones(3), t1=1.0, dt=0.1, solver=lattice)

    def test_compensated_in_diffrax(self) -> None:
        field, y0, solver = bounded_field(3, 12), random_start(3, 14), PoissonSplitting(4, compensated=True)
        engine = jo.simulate(field, y0, t1=10.0, dt=0.1, solver=solver).ys[-1]
        np.testing.assert_allclose(engine, diffrax_final(field, solver, y0, 10.0, 100), atol=1e-14)
