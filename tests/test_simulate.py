"""simulate: equal to plain loops in every layout, honest codes, saving, measures, gradients, one compilation."""

import importlib

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest

import jaxosc as jo
from jaxosc.solvers import PoissonSplitting

Y4 = jnp.asarray([0.8, -0.3, 0.5, 0.1])


def network(n=4, seed=0, gain=1.0, **options):
    return jo.CurrentRNN(jo.weights.DenseSkew.random(jax.random.key(seed), n, gain=gain), **options)


def networks(count, n=4):
    keys = jax.random.split(jax.random.key(7), count)
    return jax.vmap(lambda key: jo.CurrentRNN(jo.weights.DenseSkew.random(key, n)))(keys)


def solve_with_diffrax(field, y0, solver, t1, dt, ts=None):
    return diffrax.diffeqsolve(
        diffrax.ODETerm(field), solver, 0.0, t1, dt, y0, max_steps=None, saveat=diffrax.SaveAt(t1=ts is None, ts=ts)
    ).ys


SOLVERS = [jo.ForwardEuler(), PoissonSplitting(1), PoissonSplitting(4), diffrax.Tsit5(), diffrax.Kvaerno3()]
MORE_SOLVERS = [PoissonSplitting(2), diffrax.Heun(), diffrax.Dopri8(), diffrax.Bosh3()]
SOLVERS += [pytest.param(solver, marks=pytest.mark.slow) for solver in MORE_SOLVERS]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: f"{type(s).__name__}{getattr(s, 'accuracy', '')}")
def test_engine_equals_diffrax_step_for_step(solver):
    if isinstance(solver, diffrax.Kvaerno3):
        # An implicit solver stops its root finder by tolerance: equal to that tolerance and not to rounding.
        solver, tolerance = diffrax.Kvaerno3(root_finder=optimistix.Newton(rtol=1e-10, atol=1e-12)), 1e-8
    else:
        tolerance = 1e-12
    field = network(bias=[0.1, 0.0, -0.2, 0.0])
    ours = jo.simulate(field, Y4, t1=5.0, dt=0.05, solver=solver)
    theirs = solve_with_diffrax(field, Y4, solver, 5.0, 0.05)
    assert ours.ys.shape == (1, 4)
    assert float(jnp.abs(ours.ys[0] - Y4).max()) > 0.1
    np.testing.assert_allclose(ours.ys, theirs, atol=tolerance)


@pytest.mark.parametrize(
    "n", [8, 13, pytest.param(2, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("shared", [True, False])
def test_layouts_agree_at_every_size(n, shared):
    """Unrolled columns, products, written-out and looped sweeps, shared and own weights: one answer."""
    fields = networks(3, n)
    starts = jax.random.normal(jax.random.key(1), (3, n))
    field = jax.tree.map(lambda leaf: leaf[0], fields) if shared else fields
    batch = jo.simulate(field, starts, t1=2.0, dt=0.1, solver=PoissonSplitting(2))
    for k in range(3):
        single = field if shared else jax.tree.map(lambda leaf, k=k: leaf[k], fields)
        expected = solve_with_diffrax(single, starts[k], PoissonSplitting(2), 2.0, 0.1)
        np.testing.assert_allclose(batch.ys[k], expected, atol=1e-12)


def test_euler_equals_the_hand_written_loop():
    field = network(leak=0.05)
    ts, ys = jo.euler_loop(field, Y4, 0.01, 1000, save_every=100)
    solution = jo.simulate(field, Y4, t1=10.0, dt=0.01, solver=jo.ForwardEuler(), save_every=100)
    np.testing.assert_allclose(solution.ts, ts, rtol=1e-13)
    np.testing.assert_allclose(solution.ys, ys, atol=1e-13)
    np.testing.assert_allclose(solve_with_diffrax(field, Y4, diffrax.Euler(), 10.0, 0.01)[0], ys[-1], atol=1e-13)


def test_product_of_4096_starts_and_64_draws_equals_a_loop_on_a_sample():
    fields = networks(64)
    starts = 0.7 * jax.random.normal(jax.random.key(3), (4096, 4))
    solution = jo.simulate(fields, starts, t1=1.0, dt=0.1, solver=jo.ForwardEuler(), pairing="product")
    assert solution.ys.shape == (64, 4096, 1, 4) and solution.result.shape == (64, 4096)
    vmapped = jax.vmap(lambda f: jax.vmap(lambda y: jo.euler_loop(f, y, 0.1, 10)[1][-1])(starts))(fields)
    np.testing.assert_allclose(solution.ys[:, :, 0], vmapped, atol=1e-13)
    for draw, start in [(0, 0), (63, 4095), (17, 1234), (40, 4000)]:
        field = jax.tree.map(lambda leaf, d=draw: leaf[d], fields)
        np.testing.assert_allclose(
            solution.ys[draw, start, 0], jo.euler_loop(field, starts[start], 0.1, 10)[1][-1], atol=1e-13
        )


def test_blocks_do_not_show(monkeypatch):
    fields, starts = networks(5), jax.random.normal(jax.random.key(3), (5, 4))
    whole = jo.simulate(fields, starts, t1=1.0, dt=0.1, save_every=5)
    # By module object: the attribute path jaxosc.simulate is the function.
    monkeypatch.setattr(importlib.import_module("jaxosc.simulate.fixed"), "BLOCK_MEMBERS", 2)
    blocks = jo.simulate(fields, starts, t1=1.0, dt=0.1, save_every=5)
    np.testing.assert_allclose(blocks.ys, whole.ys, atol=1e-14)
    assert blocks.ys.shape == (5, 3, 4) and blocks.result.shape == (5,)


def test_zip_broadcasts_networks_leaks_and_starts():
    base = network()
    leaky = jo.CurrentRNN(base.weight, leak=jnp.asarray([0.0, 0.5]))
    starts = jnp.stack([Y4, 2 * Y4, -Y4])[:, None, :]
    solution = jo.simulate(leaky, starts, t1=1.0, dt=0.1)
    assert solution.ys.shape == (3, 2, 1, 4)
    alone = jo.simulate(jo.CurrentRNN(base.weight, leak=0.5), -Y4, t1=1.0, dt=0.1)
    np.testing.assert_allclose(solution.ys[2, 1], alone.ys, atol=1e-14)
    free = jo.simulate(base, -Y4, t1=1.0, dt=0.1)
    np.testing.assert_allclose(solution.ys[2, 0], free.ys, atol=1e-14)


@pytest.mark.parametrize("form", [jo.CurrentRNN, pytest.param(jo.RateRNN, marks=pytest.mark.slow)])
def test_leak_and_diagonal_are_solved_to_order_four(form):
    matrix = np.array([[0.2, 1.0, -0.3], [-0.8, -0.1, 0.5], [0.4, -0.6, 0.3]])
    field = form(matrix, bias=[0.1, 0.2, -0.1], leak=0.2)
    start = jnp.asarray([0.8, -0.3, 0.5])
    truth = jo.simulate(field, start, t1=4.0, rtol=1e-12, solver=diffrax.Dopri8()).ys
    errors = [
        float(jnp.abs(jo.simulate(field, start, t1=4.0, dt=dt, solver=PoissonSplitting(4)).ys - truth).max())
        for dt in (0.2, 0.1)
    ]
    assert errors[0] < 1e-3 and np.log2(errors[0] / errors[1]) > 3.85


def test_saving_between_steps_is_hermite_accurate():
    field = network()
    ts = jnp.linspace(0.03, 4.0, 37)
    truth = jo.simulate(field, Y4, t1=4.0, ts=ts, rtol=1e-12, solver=diffrax.Dopri8()).ys
    errors = [
        float(jnp.abs(jo.simulate(field, Y4, t1=4.0, dt=dt, ts=ts, solver=PoissonSplitting(4)).ys - truth).max())
        for dt in (0.2, 0.1)
    ]
    assert errors[1] < 1e-5 and np.log2(errors[0] / errors[1]) > 3.5


def test_adaptive_equals_diffrax_and_reports():
    field = network()
    solution = jo.simulate(field, jnp.stack([Y4, 2 * Y4]), t1=10.0, rtol=1e-9, solver=diffrax.Tsit5())
    assert solution.ys.shape == (2, 1, 4) and solution.stats["engine"] == "adaptive"
    fine = jo.simulate(field, 2 * Y4, t1=10.0, dt=0.01, solver=diffrax.Dopri8()).ys
    np.testing.assert_allclose(solution.ys[1], fine, atol=1e-7)
    assert float(jnp.abs(solution.energy_drift).max()) < 1e-7
    short = jo.simulate(field, Y4, t1=10.0, rtol=1e-9, solver=diffrax.Tsit5(), max_steps=3, throw=False)
    assert int(short.result) == jo.Result.max_steps_reached


def test_escape_freezes_marks_and_spares_the_others():
    field = jo.CurrentRNN(jo.weights.RotationBlocks(jnp.asarray([3.0])), jo.Identity())
    starts = jnp.asarray([[1e-30, 0.0], [1.0, 0.0]])
    solution = jo.simulate(field, starts, t1=50.0, dt=1.0, solver=jo.ForwardEuler(), escape_norm=100.0)
    # |y|^2 grows by 1 + 9 a step: the second start passes 100 after the fourth.
    assert solution.result.tolist() == [jo.Result.successful, jo.Result.escaped]
    assert solution.stats["num_steps"].tolist() == [50, 4]
    np.testing.assert_allclose(jnp.linalg.norm(solution.ys[1, 0]), 100.0, rtol=1e-12)
    np.testing.assert_allclose(jnp.linalg.norm(solution.ys[0, 0]), 1e-30 * 10**25, rtol=1e-12)


def test_single_failure_raises_with_advice_unless_told_not_to():
    field = jo.CurrentRNN(jo.weights.RotationBlocks(jnp.asarray([3.0])), jo.Identity())
    options = dict(t1=50.0, dt=1.0, solver=jo.ForwardEuler())
    with pytest.raises(jo.JaxoscError, match="escaped"):
        jo.simulate(field, jnp.ones(2), **options)
    assert int(jo.simulate(field, jnp.ones(2), throw=False, **options).result) == jo.Result.escaped


def test_non_finite_is_told_from_escape():
    blowing = jo.Elementwise(lambda y: jnp.where(y > 1.5, jnp.nan, y))
    field = jo.CurrentRNN(jo.weights.RotationBlocks(jnp.asarray([1.0])), blowing)
    solution = jo.simulate(field, jnp.asarray([[1.0, 1.4], [0.1, 0.1]]), t1=5.0, dt=0.1)
    assert solution.result.tolist() == [jo.Result.non_finite, jo.Result.successful]
    assert bool(jnp.isfinite(solution.ys).all())


def test_reducers_measure_what_they_say():
    omega, dt = 1.3, 0.02
    field = jo.CurrentRNN(jo.weights.RotationBlocks(jnp.asarray([omega])))
    y0 = jnp.asarray([[1.0, 0.2], [0.01, 0.0]])
    reducers = (jo.EnergyDrift(), jo.Norms(), jo.Crossings())
    solution = jo.simulate(field, y0, t1=200.0, dt=dt, solver=PoissonSplitting(4), reducers=reducers)
    path = jo.simulate(field, y0, t1=200.0, dt=dt, solver=PoissonSplitting(4), save_every=1).ys
    norms = jnp.linalg.norm(path, axis=-1)
    np.testing.assert_allclose(solution.reduced["max_norm"], norms.max(axis=1), rtol=1e-14)
    np.testing.assert_allclose(solution.reduced["final_norm"], norms[:, -1], rtol=1e-14)
    energies = field.energy(path)
    drifts = energies / energies[:, :1] - 1
    np.testing.assert_allclose(solution.energy_drift, drifts[:, -1], atol=1e-15)
    every_tenth = jnp.abs(drifts[:, ::10]).max(axis=1)
    np.testing.assert_allclose(jnp.abs(solution.reduced["energy_drift_max"]), every_tenth, rtol=1e-6, atol=1e-15)
    period = jo.oracles.pair_period(field.energy(y0), omega)
    np.testing.assert_allclose(solution.reduced["period"], period, rtol=1e-6)
    np.testing.assert_allclose(solution.reduced["frequency"] * solution.reduced["period"], 1.0)
    assert float(solution.reduced["period_spread"].max()) < 1e-4
    assert np.all(np.asarray(solution.reduced["crossings"]) >= 30)


def test_no_crossing_is_nan_and_not_zero():
    field = network()
    solution = jo.simulate(field, Y4, t1=0.5, dt=0.1, reducers=(jo.Crossings(),))
    assert np.isnan(solution.reduced["period"]) and int(solution.reduced["crossings"]) == 0


def test_loop_equals_vmap_equals_jit():
    field, starts = network(), jnp.stack([Y4, 0.5 * Y4, -2 * Y4])

    def run(y):
        return jo.simulate(field, y, t1=3.0, dt=0.1, ts=[1.0, 2.55, 3.0]).ys

    together = run(starts)
    np.testing.assert_allclose(jax.vmap(run)(starts), together, atol=1e-13)
    np.testing.assert_allclose(jax.jit(run)(starts), together, atol=1e-13)
    np.testing.assert_allclose(jnp.stack([run(y) for y in starts]), together, atol=1e-13)


def test_gradient_equals_finite_differences():
    def loss(gain, y0):
        return jo.simulate(network(gain=gain), y0, t1=2.0, dt=0.1).ys[-1, 0]

    gradient = jax.grad(loss, argnums=(0, 1))(1.0, Y4)
    step = 1e-6
    by_gain = (loss(1.0 + step, Y4) - loss(1.0 - step, Y4)) / (2 * step)
    np.testing.assert_allclose(gradient[0], by_gain, rtol=1e-7)
    by_start = [(loss(1.0, Y4 + step * e) - loss(1.0, Y4 - step * e)) / (2 * step) for e in jnp.eye(4)]
    np.testing.assert_allclose(gradient[1], jnp.stack(by_start), rtol=1e-6, atol=1e-9)


def test_float32_is_close_to_float64():
    fields = [jo.CurrentRNN(jo.weights.DenseSkew.random(jax.random.key(0), 4, dtype=d)) for d in ("f4", "f8")]
    fields[0] = jo.CurrentRNN(jo.weights.DenseSkew.from_matrix(fields[1].weight.matrix().astype(jnp.float32)))
    single, double = (jo.simulate(f, Y4.astype(f.dtype), t1=10.0, dt=0.1) for f in fields)
    assert single.ys.dtype == jnp.float32 and single.energy_drift.dtype == jnp.float32
    # 100 steps of rounding errors of 6e-8 each, somewhat amplified.
    np.testing.assert_allclose(single.ys, double.ys, atol=2e-5)


def compilations(function):
    """How many programs XLA compiles while `function` runs."""
    events = []

    def listen(name, duration, **_):
        if name == "/jax/core/compile/backend_compile_duration":
            events.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        function()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return len(events)


def test_ten_thousand_gains_compile_once():
    def run(gain, dt):
        return jo.simulate(network(gain=gain), Y4, t1=1.0, dt=dt).ys

    run(0.5, 0.1)
    assert compilations(lambda: [run(gain, dt) for gain in (0.7, 1.9) for dt in (0.1, 0.02, 0.5)]) == 0
    gains = jnp.linspace(0.1, 2.0, 10_000)
    batch = jax.vmap(lambda g: jo.CurrentRNN(jo.weights.DenseSkew.random(jax.random.key(0), 4).scaled(g)))(gains)
    jo.simulate(batch, Y4, t1=1.0, dt=0.1)
    again = jax.tree.map(lambda leaf: leaf * 0.9, batch)
    assert compilations(lambda: jo.simulate(again, Y4, t1=1.0, dt=0.05)) == 0


WAYS = pytest.mark.parametrize(
    "options",
    [dict(dt=0.1), dict(rtol=1e-3, solver=diffrax.Tsit5()), dict(rtol=1e-3, solver=jo.solvers.Taylor(4))],
    ids=["fixed", "Runge-Kutta", "Taylor"],
)


@WAYS
@pytest.mark.parametrize("kind", ["own", "product"])
def test_a_first_call_is_one_program(options, kind):
    # Numbers of members that nobody else in this session has compiled for.
    own = kind == "own"
    fields, starts = networks(13 if own else 3), np.random.default_rng(0).normal(size=(13 if own else 7, 4))
    more = dict(options, pairing="zip" if own else "product")
    assert compilations(lambda: jo.simulate(fields, starts, t1=1.0, **more)) == 1


@WAYS
def test_a_later_call_compiles_nothing(options):
    fields, starts = networks(3), jnp.ones((3, 4))
    jo.simulate(fields, starts, t1=1.0, **options)
    louder = jax.tree.map(lambda leaf: 2 * leaf, fields)
    other = {name: value / 2 if name in ("dt", "rtol") else value for name, value in options.items()}
    assert compilations(lambda: jo.simulate(louder, starts, t0=0.5, t1=2.0, escape_norm=1e3, **other)) == 0


def test_one_program_serves_any_number_of_blocks(monkeypatch):
    monkeypatch.setattr(importlib.import_module("jaxosc.simulate.fixed"), "BLOCK_MEMBERS", 6)
    fields, starts = networks(26), np.ones((26, 4))
    # That of a block, and two that cut and join.
    assert compilations(lambda: jo.simulate(fields, starts, t1=1.0, dt=0.1)) == 3
    fewer = jax.tree.map(lambda leaf: leaf[:20], fields)
    assert compilations(lambda: jo.simulate(fewer, starts[:20], t1=1.0, dt=0.1)) == 2


def test_repr_is_for_people():
    text = repr(jo.simulate(networks(3), Y4, t1=1.0, dt=0.1, reducers=(jo.Norms(),)))
    assert "3 members, n = 4" in text and "3 successful" in text and "dt = 0.1" in text and "max_norm" in text
    assert "energy drift" in text and len(text.splitlines()) <= 8


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(t1=1.0, dt=-0.1), "dt is -0.1"),
        (dict(t1=1.0, dt=0.0), "dt is 0.0"),
        (dict(t1=1.0), "no dt"),
        (dict(t1=0.0, dt=0.1), "expected two times that differ"),
        (dict(t1=1.0, dt=0.1, y0=jnp.ones(3)), "shape (3,)"),
        (dict(t1=1.0, dt=0.1, y0=jnp.full(4, jnp.nan)), "4 NaN"),
        (dict(t1=1.0, dt=0.1, ts=[0.5, 2.0]), "within the run"),
        (dict(t1=1.0, dt=0.1, ts=[0.5, 0.2]), "ascending"),
        (dict(t1=1.0, dt=0.1, ts=[0.5], save_every=2), "both save_every and ts"),
        (dict(t1=1.0, dt=0.1, save_every=0), "save_every = 0"),
        (dict(t1=1.0, dt=0.1, solver="tsit5"), "expected an instance"),
        (dict(t1=1.0, rtol=1e-6, reducers=(jo.Norms(),)), "reducers with adaptive"),
        (dict(t1=1.0, dt=0.1, pairing="cross"), "pairing = 'cross'"),
    ],
)
def test_bad_input_is_one_sentence(options, words):
    options = dict(options)
    y0 = options.pop("y0", Y4)
    with pytest.raises(jo.JaxoscError) as error:
        jo.simulate(network(), y0, **options)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_axes_that_do_not_broadcast():
    with pytest.raises(jo.JaxoscError, match='pairing="product"'):
        jo.simulate(networks(3), jnp.ones((2, 4)), t1=1.0, dt=0.1)
