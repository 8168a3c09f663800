"""Frequencies that are tuned: against the closed form of the pair, and measured anew by another solver and window."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxosc as jo
from jaxosc.tuning.closed_orbits import families, linear_modes
from jaxosc.tuning.time_scale import as_members
from jaxosc.tuning.turning import MOST_FASTEST, fastest_bound

tuning = jo.tuning
MEMBERS = 24
RATIO = 8.0


def pair(omega):
    """A tanh pair of that angular frequency."""
    return jo.CurrentRNN(jo.weights.RotationBlocks(jnp.atleast_1d(omega)))


def exact_frequency(omega, y0):
    """The closed form."""
    return 1 / jo.oracles.pair_period(pair(omega).energy(y0), jnp.ravel(omega)[0])


def line_of(field, y0, target, periods=256, order=6):
    """The dominant line of neuron 0 by another run than any measure makes: in cycles per unit of time."""
    run = jo.simulate(
        field, y0, t1=periods / target, dt=1 / (150 * target), solver=jo.solvers.PoissonSplitting(order), save_every=5
    )
    return jo.orbits.frequency(run.ts, run.ys[..., :1]).frequency


@pytest.fixture(scope="module")
def pairs():
    """Random pairs, starts from nearly linear to saturated, and targets an eighth to eight times what they have."""
    random = np.random.default_rng(0)
    omega = np.exp(random.uniform(-1, 1, MEMBERS))
    starts = random.standard_normal((MEMBERS, 2)) * np.exp(random.uniform(-2, 0, MEMBERS))[:, None]
    fields = jax.vmap(pair)(jnp.asarray(omega))
    now = jax.vmap(exact_frequency)(jnp.asarray(omega), jnp.asarray(starts))
    return fields, jnp.asarray(starts), now * RATIO ** random.uniform(-1, 1, MEMBERS)


@pytest.fixture(scope="module")
def four():
    """A network of four neurons whose orbit from the start is a torus."""
    return jo.CurrentRNN(jo.weights.DenseSkew.random(jax.random.key(1), 4)), jnp.array([0.1, 0.2, 0.3, 0.1])


# The time scale


@pytest.mark.parametrize("form", [jo.CurrentRNN, jo.RateRNN])
def test_a_rescaled_network_runs_the_same_orbit_faster(form):
    factor = jnp.array([0.25, 3.0])
    bias = jnp.array([0.1, -0.2, 0.3])
    field = form(jo.weights.DenseSkew.random(jax.random.key(3), 3), bias=bias, leak=0.05)
    y0 = jnp.array([0.5, -1.0, 0.7])
    networks, starts, shape = as_members(field, jnp.stack([y0, y0]))
    fast, begins = tuning.rescaled(networks, starts, factor)
    assert shape == (2,)
    for member in range(2):
        one = jax.tree.map(lambda leaf, member=member: leaf[member], fast)
        c = float(factor[member])
        tail = jo.simulate(one, begins[member], t1=8.0 / c, dt=0.05 / c, solver=jo.solvers.PoissonSplitting(4)).ys[-1]
        plain = jo.simulate(field, y0, t1=8.0, dt=0.05, solver=jo.solvers.PoissonSplitting(4)).ys[-1]
        seen = tail * c if form is jo.RateRNN else tail
        assert jnp.abs(plain - y0).max() > 0.1
        np.testing.assert_allclose(seen, plain, rtol=1e-12, atol=1e-12)  # the same arithmetic but for roundings


def test_the_bound_on_the_fastest_mode_is_a_power_of_two():
    networks = jax.vmap(pair)(jnp.array([1.0, 2.0, 20.0]))
    assert fastest_bound(networks, np.full(3, 2 * np.pi)).tolist() == [1, 2, 32]


# Measures


@pytest.mark.parametrize(
    "measure, accuracy",
    [
        # value and gradient; science.md has 1e-11 and 1e-10 for returns, 6e-12 and 1e-8 for events
        (tuning.PairFormula(), (1e-15, 1e-14)),
        (tuning.Returns(), (1e-10, 1e-9)),
        (tuning.EventReturns(), (1e-9, 1e-7)),
        (tuning.Line(turns=32), (1e-9, 1e-8)),
        (tuning.Rotation(turns=64), (1e-8, 1e-7)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_value_and_gradient_of_a_frequency_are_those_of_the_closed_form(measure, accuracy):
    omega, y0 = jnp.array([2.0]), jnp.array([0.5, 0.8])

    def measured(omega, y0):
        return tuning.orbit_frequency(pair(omega), y0, measure=measure, near=0.27).frequency

    value, slopes = jax.value_and_grad(measured, argnums=(0, 1))(omega, y0)
    exact, exact_slopes = jax.value_and_grad(exact_frequency, argnums=(0, 1))(omega, y0)
    np.testing.assert_allclose(value, exact, rtol=accuracy[0] + 4e-16)
    for slope, exact_slope in zip(slopes, exact_slopes, strict=True):
        np.testing.assert_allclose(slope, exact_slope, rtol=accuracy[1])


def test_a_frequency_is_found_without_a_guess(pairs):
    fields, starts, _ = pairs
    for measure, accuracy in ((None, 1e-14), (tuning.Returns(), 1e-8)):
        found = tuning.orbit_frequency(fields, starts, measure=measure)
        exact = jax.vmap(exact_frequency)(fields.weight.angular_frequencies, starts)
        np.testing.assert_allclose(found.frequency, exact, rtol=accuracy)


def test_other_activations_have_a_formula_too():
    field = jo.CurrentRNN(jo.weights.RotationBlocks(jnp.array([1.5])), jo.Arctan())
    y0 = jnp.array([1.0, 0.4])
    formula = tuning.orbit_frequency(field, y0).frequency
    np.testing.assert_allclose(
        formula, tuning.orbit_frequency(field, y0, measure=tuning.Returns()).frequency, rtol=1e-9
    )


def test_the_gradient_of_a_line_of_a_torus_is_that_of_finite_differences(four):
    field, y0 = four
    near = float(tuning.orbit_frequency(field, y0).frequency)

    def line(entries):
        network = jo.CurrentRNN(jo.weights.DenseSkew(entries))
        return tuning.orbit_frequency(network, y0, near=near, measure=tuning.Line(readout=0)).frequency

    entries = field.weight.entries
    slope = jax.grad(line)(entries)
    direction = jnp.asarray(np.random.default_rng(1).standard_normal(len(entries)))
    step = 1e-5
    difference = (line(entries + step * direction) - line(entries - step * direction)) / (2 * step)
    # The torus has two lines, so the top of one moves a little with the phase of the other: 1e-6.
    np.testing.assert_allclose(jnp.sum(slope * direction), difference, rtol=1e-5)


def test_measures_refuse_what_they_do_not_fit(four):
    field, y0 = four
    with pytest.raises(jo.JaxoscError, match="no skew pair"):
        tuning.orbit_frequency(field, y0, measure=tuning.PairFormula())
    with pytest.raises(jo.JaxoscError, match="readout"):
        tuning.orbit_frequency(field, y0, measure=tuning.Line(readout=jnp.ones(3)))
    with pytest.raises(jo.JaxoscError, match="Got the measure 'fft'"):
        tuning.orbit_frequency(field, y0, measure="fft")
    with pytest.raises(jo.JaxoscError, match="near"):
        jax.grad(lambda y: tuning.orbit_frequency(field, y).frequency)(y0)
    with pytest.raises(jo.JaxoscError, match="driven"):
        tuning.orbit_frequency(jo.CurrentRNN(field.weight, drive=lambda t: jnp.ones(4)), y0)


# tune_frequency by the gain


def test_every_pair_reaches_its_target_to_rounding(pairs):
    fields, starts, targets = pairs
    tuned = tuning.tune_frequency(fields, starts, targets)
    exact = jax.vmap(exact_frequency)(tuned.field.weight.angular_frequencies, tuned.y0)
    assert bool(tuned.reached.all())
    np.testing.assert_allclose(exact, targets, rtol=4e-15)
    np.testing.assert_array_equal(tuned.y0, starts)
    assert tuned.history.shape == (2, MEMBERS)
    assert "24 of 24 reached" in repr(tuned)


def test_the_same_by_returns_and_in_float32(pairs):
    fields, starts, targets = pairs
    tuned = tuning.tune_frequency(fields, starts, targets, measure=tuning.Returns())
    exact = jax.vmap(exact_frequency)(tuned.field.weight.angular_frequencies, tuned.y0)
    np.testing.assert_allclose(exact, targets, rtol=5e-9)
    small = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (fields, starts, targets))
    tuned = tuning.tune_frequency(*small)
    assert bool(tuned.reached.all()) and tuned.frequency.dtype == jnp.float32


def test_a_torus_reaches_its_target_as_another_run_sees_it(four):
    field, y0 = four
    tuned = tuning.tune_frequency(field, y0, 0.5)
    assert bool(tuned.reached) and tuned.result.shape == ()
    np.testing.assert_allclose(line_of(tuned.field, tuned.y0, 0.5), 0.5, rtol=1e-6)
    assert "reached: frequency 0.5" in repr(tuned)


def test_closed_orbits_are_reached_and_stay():
    weights = jax.vmap(lambda key: jo.weights.DenseSkew.random(key, 4))(jax.random.split(jax.random.key(2), 4))
    fields = jax.vmap(jo.CurrentRNN)(weights)
    starts = jnp.asarray(np.random.default_rng(2).standard_normal((4, 4)))
    targets = jnp.array([0.2, 1.0, 3.0, 8.0])
    tuned = tuning.tune_frequency(fields, starts, targets, closed=True)
    assert bool(tuned.reached.all())
    for member in range(4):
        field = jax.tree.map(lambda leaf, member=member: leaf[member], tuned.field)
        target = float(targets[member])
        np.testing.assert_allclose(line_of(field, tuned.y0[member], target), target, rtol=1e-6)
        back = jo.simulate(field, tuned.y0[member], t1=1 / target, dt=1 / (200 * target), solver=SIXTH).ys[-1]
        assert jnp.linalg.norm(tuned.y0[member]) > 0.1
        np.testing.assert_allclose(back, tuned.y0[member], atol=1e-5)


SIXTH = jo.solvers.PoissonSplitting(6)


def test_the_mode_is_the_one_that_the_readout_sees():
    field = jo.CurrentRNN(jo.weights.RotationBlocks(jnp.array([1.0, 3.0])))
    networks, starts, _ = as_members(field, jnp.array([[0.5, 0.0, 0.0, 0.4]]))
    for readout, angular, mode in (
        (0, 1.0, [0.5, 0.0, 0.0, 0.0]),
        (3, 3.0, [0.0, 0.0, 0.0, 0.4]),
        (jnp.array([1.0, 0.0, 0.0, 2.0]), 3.0, [0.0, 0.0, 0.0, 0.4]),
        (None, 1.0, [0.5, 0.0, 0.0, 0.0]),
    ):
        found, omega = linear_modes(networks, starts, readout)
        np.testing.assert_allclose(omega, angular, rtol=1e-14)
        np.testing.assert_allclose(found[0], mode, atol=1e-14)


def test_families_begin_in_the_linear_mode_and_grow(four):
    field, y0 = four
    networks, starts, _ = as_members(field, y0[None])
    found = families(networks, starts, 0)
    linear = np.abs(np.linalg.eigvals(np.asarray(field.weight.matrix())).imag)
    assert bool(found.found.all())
    # Frequencies fall like energy/2 from the linear one, which is no nearer than that to any other.
    assert np.min(np.abs(2 * np.pi / float(found.period[0, 0]) / linear - 1)) < 1e-3
    energies = jax.vmap(field.energy)(found.y0[0])
    np.testing.assert_allclose(energies / energies[-1], found.share[0], rtol=1e-8)
    assert bool((jnp.diff(energies) > 0).all())


def test_failures_are_codes_with_a_reason_and_stop_nobody():
    weight = jo.weights.RotationBlocks(jnp.array([[1.0, 3.0], [1.0, 3.0], [1e-3, 3.0]]))
    fields = jax.vmap(jo.CurrentRNN)(weight)
    starts = jnp.array([[0.1, 0.0, 0.1, 0.0], [0.0, 0.0, 0.0, 0.0], [0.1, 0.0, 0.0, 0.0]])
    tuned = tuning.tune_frequency(fields, starts, 0.3)
    assert [tuning.Outcome(int(code)).name for code in tuned.result] == ["reached", "at_rest", "too_slow"]
    reasons = tuned.reasons()
    assert "nothing turns" in reasons[1] and "64 times slower" in reasons[2]
    assert MOST_FASTEST == 64
    assert "1 of 3 at rest" in repr(tuned)


@pytest.mark.slow
def test_a_line_of_another_window_is_not_called_sharp():
    # At n = 8 most starts lie in weak chaos or between lines near each other: in the window that was looked through the
    # frequency is on its target, in one twice as long it is another.
    field = jo.CurrentRNN(jo.weights.DenseSkew.random(jax.random.key(0), 8))
    starts = 0.5 * jnp.asarray(np.random.default_rng(5).standard_normal((4, 8)))
    tuned = tuning.tune_frequency(field, starts, 1.0)
    close, moves = jnp.abs(tuned.frequency - 1) <= 1e-6, tuned.error > 1e-5
    assert bool((close & moves).any())
    np.testing.assert_array_equal(tuned.result == tuning.Outcome.reached, close & ~moves)
    assert "closed=True" in repr(tuned)


# By the energy of the start, and along families


def test_the_start_is_moved_to_the_energy_of_the_target(pairs):
    fields, starts, _ = pairs
    omega = fields.weight.angular_frequencies
    share = jnp.asarray(np.random.default_rng(7).uniform(0.3, 0.99, MEMBERS))
    targets = share * omega[:, 0] / (2 * jnp.pi)
    tuned = tuning.tune_frequency(fields, starts, targets, over="energy")
    assert bool(tuned.reached.all())
    np.testing.assert_array_equal(tuned.field.weight.angular_frequencies, omega)
    np.testing.assert_allclose(jax.vmap(exact_frequency)(omega, tuned.y0), targets, rtol=2e-9)
    direction = tuned.y0 / jnp.linalg.norm(tuned.y0, axis=1, keepdims=True)
    np.testing.assert_allclose(direction, starts / jnp.linalg.norm(starts, axis=1, keepdims=True), atol=1e-14)


def test_a_frequency_above_the_linear_one_is_out_of_range():
    tuned = tuning.tune_frequency(pair(1.0), jnp.array([0.5, 0.0]), 0.2, over="energy")
    assert int(tuned.result) == tuning.Outcome.out_of_range
    assert "no start on its ray" in repr(tuned)


def test_curves_of_the_pair_are_the_closed_form():
    field, y0 = pair(2.0), jnp.array([0.3, 0.1])
    curve = tuning.frequency_curve(field, y0, np.geomspace(1e-3, 3, 6))
    exact = 1 / jo.oracles.pair_period(curve.energy, 2.0)
    slopes = jax.vmap(jax.grad(lambda energy: 1 / jo.oracles.pair_period(energy, 2.0)))(curve.energy)
    np.testing.assert_allclose(curve.frequency, exact, rtol=5e-7)
    np.testing.assert_allclose(curve.slope, slopes, rtol=1e-5)
    one = tuning.energy_for_frequency(field, y0, 0.2)
    np.testing.assert_allclose(1 / jo.oracles.pair_period(one.energy, 2.0), 0.2, rtol=5e-7)
    np.testing.assert_allclose(field.energy(one.y0[0]), one.energy[0], rtol=1e-9)
    assert "6 of 6 orbits" in repr(curve)
    with pytest.raises(jo.JaxoscError, match="expected a frequency of this mode's family"):
        tuning.energy_for_frequency(field, y0, 0.5)


# By gradients


def test_weights_are_moved_by_newton_to_the_target(four):
    field, y0 = four
    tuned = tuning.tune_frequency(field, y0, 0.2, over=lambda field: field.weight.entries, measure=QUICK)
    assert bool(tuned.reached)
    # In a run of 32 turns the line is known to 2e-5 on this torus.
    np.testing.assert_allclose(line_of(tuned.field, tuned.y0, 0.2), 0.2, rtol=1e-4)
    # Newton's method: the last steps of log f go like squares.
    miss = np.abs(np.log(np.asarray(tuned.history) / 0.2))
    assert miss[-1] < 1e-6 and len(miss) < 12


QUICK = tuning.Line(readout=0, turns=32)


def nearer_to_one(field, y0):
    """An objective: entries near 1."""
    return jnp.mean((field.weight.entries - 1) ** 2)


def test_an_objective_falls_while_the_frequency_stays_on_its_target(four):
    field, y0 = four
    options = dict(over="weight", objective=nearer_to_one, measure=QUICK, optimiser=optax.adam(0.05))
    first = tuning.tune_frequency(field, y0, 0.2, steps=6, **options)
    assert bool(first.reached)
    losses = np.asarray(first.losses)
    assert losses[-1] < 0.98 * losses[0]
    np.testing.assert_allclose(first.history[1:], 0.2, rtol=1e-12)  # projected, not approached
    np.testing.assert_allclose(first.frequency, 0.2, rtol=1e-9)  # and once more at the end, in the window of the target
    # The same in two pieces, the second of which goes on with the optimiser of the first.
    half = tuning.tune_frequency(field, y0, 0.2, steps=3, **options)
    rest = tuning.tune_frequency(field, y0, 0.2, steps=3, resume=half, **options)
    np.testing.assert_allclose(rest.losses[-1], losses[-1], rtol=1e-2)
    fresh = tuning.tune_frequency(half.field, half.y0, 0.2, steps=3, **options)
    assert abs(float(rest.losses[-1] - losses[-1])) < abs(float(fresh.losses[-1] - losses[-1]))


def test_ctrl_c_keeps_the_best_so_far(four, monkeypatch):
    from jaxosc.tuning import descent

    field, y0 = four
    looked, calls = descent._looked_at, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return looked(*arguments)

    monkeypatch.setattr(descent, "_looked_at", interrupted)
    tuned = tuning.tune_frequency(field, y0, 0.2, over=lambda field: field.weight.entries, measure=QUICK)
    assert len(tuned.history) == 3
    begun = abs(float(jnp.log(tuned.history[0] / 0.2)))
    assert abs(float(jnp.log(tuned.frequency / 0.2))) < begun
    monkeypatch.setattr(descent, "_looked_at", looked)
    again = tuning.tune_frequency(field, y0, 0.2, over=lambda f: f.weight.entries, measure=QUICK, resume=tuned)
    assert bool(again.reached)


@pytest.mark.parametrize(
    "options, told",
    [
        (dict(target=-1.0), "target is -1.0"),
        (dict(target=jnp.ones(3)), "targets of shape"),
        (dict(over="leaks"), "expected one of gain, energy, weight, bias"),
        (dict(over=("gain", "weight")), "gain and energy alone"),
        (dict(over="bias"), "without bias"),
        (dict(objective=nearer_to_one), "leaves no freedom"),
        (dict(closed=True, over="weight"), "over='gain'"),
        (dict(steps=0), "steps = 0"),
        (dict(resume=3), "resume = 3"),
    ],
)
def test_wrong_wishes_are_one_sentence(four, options, told):
    field, y0 = four
    with pytest.raises(jo.JaxoscError, match=told):
        tuning.tune_frequency(field, y0, **(dict(target=0.2) | options))


def test_closed_wants_a_conservative_network(four):
    _, y0 = four
    leaky = jo.CurrentRNN(jo.weights.DenseSkew.random(jax.random.key(1), 4), leak=0.1)
    with pytest.raises(jo.JaxoscError, match="not conservative"):
        tuning.tune_frequency(leaky, y0, 0.2, closed=True)


def test_results_within_a_transformation_have_a_repr(four):
    field, y0 = four
    tuned = tuning.tune_frequency(field, y0, 0.5, measure=QUICK)
    seen = []
    eqx.filter_jit(lambda tuned: seen.append(repr(tuned)))(tuned)
    assert seen == ["Tuned (inside a JAX transformation)"]
