"""Pictures of orbits draw the numbers they were given, in light and dark, and say what they cannot draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgba
from synthetic import synthetic_atlas
from test_plotting import drawn, new_figure

import jaxosc as jo
from jaxosc import plotting
from jaxosc.orbits import CrossingRecord, LyapunovSpectrum, PeriodicOrbit
from jaxosc.plotting.appearance import marks
from jaxosc.plotting.exponents import _with_error

OMEGA = 1.3


@pytest.fixture(params=[False, True], ids=["light", "dark"])
def dark(request):
    with plotting.style(request.param):
        yield request.param


def axes_of(width: float = 5.0) -> Axes:
    figure = new_figure(width)
    figure.set_layout_engine("constrained")
    return figure.add_subplot()


def legend_of(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


# sections


def record(batch=(), *, n: int = 4, most: int = 6, fewer: int = 0, stretch: float = 1.0) -> CrossingRecord:
    """The first orbit has `most - fewer` crossings, every further one has one less; all states are different."""
    orbits = int(np.prod(batch))
    states = np.random.default_rng(1).normal(size=(orbits, most, n)) * np.array([0, 1, stretch, 1, 1])[:n]
    count = np.maximum(most - fewer - np.arange(orbits), 0).astype(np.int32)
    states[np.arange(most) >= count[:, None]] = np.nan
    times = jnp.zeros((*batch, most))
    steps, codes = jnp.zeros(times.shape, jnp.int32), jnp.zeros(batch, jnp.int32)
    states, count = jnp.asarray(states.reshape(*batch, most, n)), jnp.asarray(count.reshape(batch))
    return CrossingRecord(times, states, count, codes, steps, times, codes, jnp.asarray(0.1))


def dots_of(axes: Axes):
    (dots,) = [c for c in axes.collections if c.get_gid() == "dots"]
    return dots


def test_a_section_has_a_dot_for_each_crossing_and_a_colour_for_each_orbit(dark):
    crossings = record((2, 2))
    axes = plotting.poincare_section(crossings, ax=axes_of())
    assert isinstance(axes, Axes)
    kept = np.asarray(crossings.states).reshape(4, 6, 4)
    expected = np.concatenate([kept[i, : 6 - i, 1:3] for i in range(4)])
    np.testing.assert_array_equal(dots_of(axes).get_offsets(), expected)
    colors = [to_rgba(marks(4, dark=dark)[i].color) for i in range(4) for _ in range(6 - i)]
    np.testing.assert_allclose(dots_of(axes).get_facecolors(), colors, atol=1e-12)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("y[1]", "y[2]")
    assert axes.get_aspect() == 1.0
    assert legend_of(axes) == []
    drawn(axes.figure)


def test_a_section_of_other_neurons_of_one_orbit_and_of_a_long_picture():
    crossings = record(stretch=50.0)
    axes = plotting.poincare_section(crossings, neurons=(3, 0), ax=axes_of())
    np.testing.assert_array_equal(dots_of(axes).get_offsets(), np.asarray(crossings.states)[:, [3, 0]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("y[3]", "y[0]")
    assert plotting.poincare_section(crossings, ax=axes_of()).get_aspect() == "auto"
    drawn(axes.figure)


def test_many_orbits_are_coloured_in_their_order_and_named(dark):
    axes = plotting.poincare_section(record((20,), most=30), names=[f"E = {i}" for i in range(20)], ax=axes_of())
    colors = [to_hex(color) for color in dots_of(axes).get_facecolors()]
    assert len(set(colors)) == 20
    names = legend_of(axes)
    assert len(names) == 16 and (names[0], names[-1]) == ("E = 0", "E = 19")
    assert [to_hex(line.get_color()) for line in axes.get_legend().get_lines()][-1] == colors[-1]
    drawn(axes.figure)


@pytest.mark.parametrize(
    ("crossings", "options", "words"),
    [
        (dict(n=2), {}, r"neurons \(1, 2\) of a record with n = 2, expected two of 0 to 1"),
        (dict(batch=(3,)), {"names": ["a"]}, "Got 1 names, expected 3"),
        (dict(fewer=6), {}, "without a crossing"),
    ],
)
def test_a_section_says_what_is_wrong(crossings, options, words):
    with pytest.raises(jo.JaxoscError, match=words):
        plotting.poincare_section(record(**crossings), ax=axes_of(), **options)


# exponents


def spectrum(final, *, batch=(), paired: bool = True) -> LyapunovSpectrum:
    """Averages that fall like 1/t to the `final` ones."""
    final, ts = np.asarray(final, float), np.linspace(10.0, 1000.0, 100)
    series = final + np.sign(final) / ts[:, None]
    nothing = jnp.zeros(batch, jnp.int32)
    return LyapunovSpectrum(
        exponents=jnp.broadcast_to(series[-1], (*batch, final.size)),
        error=jnp.broadcast_to(0.01 + 0.1 * np.abs(final), (*batch, final.size)),
        ts=jnp.asarray(ts),
        series=jnp.broadcast_to(series, (*batch, *series.shape)),
        result=nothing,
        pairing_residual=jnp.full(batch, 1e-6 if paired else jnp.nan),
        known_zeros=nothing,
        zero_residual=jnp.zeros(batch),
        dt=0.1,
        num_steps=10_000,
    )


def exponents_of(axes: Axes) -> list:
    return [line for line in axes.lines if str(line.get_gid()).startswith("exponent")]


def test_exponents_are_drawn_in_pairs_with_their_errors(dark):
    found = spectrum([0.3, 0.1, 0.0, -0.1, -0.3])
    axes = plotting.lyapunov_convergence(found, ax=axes_of())
    lines = exponents_of(axes)
    assert axes.get_xscale() == "log"
    for i, line in enumerate(lines):
        np.testing.assert_array_equal(line.get_xdata(), found.ts)
        np.testing.assert_array_equal(line.get_ydata(), found.series[:, i])
    assert [line.get_color() for line in lines] == [marks(3, dark=dark)[i].color for i in (0, 1, 2, 1, 0)]
    assert [line.get_linestyle() for line in lines] == ["-", "-", "-", "--", "--"]
    bars = [c.get_segments()[0] for c in axes.collections if isinstance(c, LineCollection)]
    ends = np.stack([found.exponents - found.error, found.exponents + found.error], axis=-1)
    np.testing.assert_allclose([bar[:, 1] for bar in bars], ends, rtol=1e-12)
    np.testing.assert_allclose([bar[:, 0] for bar in bars], 1000.0, rtol=1e-12)
    assert list(axes.lines[0].get_ydata()) == [0.0, 0.0], "the line of zero lies under all others"
    assert legend_of(axes)[0] == r"$\lambda_{1}$ = +0.30 ± 0.04"
    assert len(legend_of(axes)) == 5
    drawn(axes.figure)


def test_the_late_half_sets_the_height():
    axes = plotting.lyapunov_convergence(spectrum([0.001, 0.0, 0.0, -0.001]), ax=axes_of())
    # The second half of the axis begins at t = 100, where averages are 0.001 + 1/100; at the begin they are 0.1.
    assert 0.011 < axes.get_ylim()[1] < 0.02
    assert axes.get_ylim()[0] == pytest.approx(-axes.get_ylim()[1], rel=1e-12)


def test_exponents_that_need_not_pair_have_a_colour_each():
    axes = plotting.lyapunov_convergence(spectrum([0.9, 0.0, -14.6], paired=False), ax=axes_of())
    lines = exponents_of(axes)
    assert len({line.get_color() for line in lines}) == len({str(line.get_linestyle()) for line in lines}) == 3
    drawn(axes.figure)


def test_one_member_of_a_batch_and_many_exponents():
    found = spectrum(np.linspace(0.7, -0.7, 16), batch=(2, 3))
    other = found.series.at[1, 2].multiply(2.0)
    found = LyapunovSpectrum(**{**vars(found), "series": other})
    axes = plotting.lyapunov_convergence(found, member=(1, -1), ax=axes_of())
    np.testing.assert_array_equal(exponents_of(axes)[0].get_ydata(), other[1, 2, :, 0])
    assert len(exponents_of(axes)) == 16 and len(legend_of(axes)) == 12
    drawn(axes.figure)


def test_convergence_says_what_is_wrong():
    found = spectrum([0.1, -0.1], batch=(3,))
    for member, words in (
        (None, r"member = None of a batch of shape \(3,\)"),
        (3, "not in a batch"),
        ((0, 0), "index"),
    ):
        with pytest.raises(jo.JaxoscError, match=words):
            plotting.lyapunov_convergence(found, member=member, ax=axes_of())
    left = LyapunovSpectrum(**{**vars(found), "result": jnp.array([0, 1, 2], jnp.int32)})
    with pytest.raises(jo.JaxoscError, match="a member that escaped"):
        plotting.lyapunov_convergence(left, member=1, ax=axes_of())


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (0.0327, 0.00096, "+0.0327 ± 0.0010"),
        (-14.586, 0.0123, "−14.586 ± 0.012"),
        (0.5, 0.04, "+0.50 ± 0.04"),
        (123.0, 30.0, "+123 ± 30"),
        (0.25, 0.0, "+0.25"),
    ],
)
def test_values_are_as_long_as_their_errors_say(value, error, words):
    assert _with_error(value, error) == words


# families


def family(batch=(), *, energies=np.geomspace(0.05, 6, 12), lost=()) -> PeriodicOrbit:
    """The pair's closed form as what was found; `lost` members have nonsense instead."""
    shape = (*batch, len(energies))
    omega = OMEGA * np.arange(1, 1 + int(np.prod(batch))).reshape(*batch, 1)
    period = np.broadcast_to(np.asarray(jo.oracles.pair_period(jnp.asarray(energies), 1.0)) / omega, shape).copy()
    result = np.zeros(shape, np.int32)
    for place in lost:
        period[..., place], result[..., place] = -99.0, jo.Result.solver_failed
    nothing, state = jnp.zeros(shape), jnp.zeros((*shape, 2))
    energy = jnp.broadcast_to(energies, shape)
    return PeriodicOrbit(state, jnp.asarray(period), energy, nothing, state, nothing, jnp.asarray(result))


def test_a_family_lies_on_its_closed_form(dark):
    found = family()
    axes = plotting.period_energy(found, theory=lambda e: jo.oracles.pair_period(e, OMEGA), ax=axes_of())
    dots, law = axes.lines
    np.testing.assert_array_equal(dots.get_xdata(), found.energy)
    np.testing.assert_array_equal(dots.get_ydata(), found.period)
    assert (dots.get_marker(), dots.get_linestyle()) == ("o", "None")
    np.testing.assert_allclose(law.get_ydata(), jo.oracles.pair_period(law.get_xdata(), OMEGA), rtol=1e-12)
    assert (law.get_xdata()[0], law.get_xdata()[-1]) == pytest.approx((0.05, 6.0), rel=1e-12)
    assert law.get_linewidth() < dots.get_markersize()
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")  # energies reach over 120, periods over 5
    assert legend_of(axes) == ["found", "closed form"]
    drawn(axes.figure)


def test_orbits_that_were_not_found_are_left_out_and_counted():
    axes = plotting.period_energy(family(energies=np.linspace(1, 5, 9), lost=(3, 4)), ax=axes_of())
    (line,) = axes.lines
    there = np.isfinite(line.get_ydata())
    np.testing.assert_allclose(line.get_xdata()[there], [1, 1.5, 2, 3.5, 4, 4.5, 5], rtol=1e-12)
    assert min(line.get_ydata()[there]) > 0
    assert [text.get_text() for text in axes.texts] == ["2 of 9 orbits not found"]
    assert (axes.get_xscale(), line.get_linestyle(), legend_of(axes)) == ("linear", "-", [])
    drawn(axes.figure)


def test_families_of_a_batch_have_a_line_each(dark):
    axes = plotting.period_energy(family((3,)), names=["a", "b", "c"], ax=axes_of())
    assert [line.get_color() for line in axes.lines] == [mark.color for mark in marks(3, dark=dark)]
    np.testing.assert_allclose(axes.lines[2].get_ydata() * 3, axes.lines[0].get_ydata(), rtol=1e-12)
    assert legend_of(axes) == ["a", "b", "c"]
    many = plotting.period_energy(family((2, 5), energies=np.geomspace(0.05, 6, 61)), ax=axes_of())
    assert len({line.get_color() for line in many.lines}) == 10
    assert {line.get_marker() for line in many.lines} <= {"", "None"}
    drawn(axes.figure)
    drawn(many.figure)


@pytest.mark.parametrize(
    ("found", "options", "words"),
    [
        (dict(lost=range(12)), {}, "no orbit was found"),
        (dict(batch=(2,)), {"names": ["a"]}, "Got 1 names, expected 2"),
        ({}, {"theory": lambda energy: 1.0}, r"gives \(\) for energies of \(200,\)"),
    ],
)
def test_a_family_says_what_is_wrong(found, options, words):
    with pytest.raises(jo.JaxoscError, match=words):
        plotting.period_energy(family(**found), ax=axes_of(), **options)


def test_a_single_orbit_is_no_family():
    with pytest.raises(jo.JaxoscError, match="a single orbit"):
        plotting.period_energy(jax.tree.map(lambda leaf: leaf[0], family()), ax=axes_of())


def test_without_axes_orbits_get_a_new_pyplot_figure():
    import matplotlib.pyplot as plt

    made = [
        plotting.poincare_section(record()),
        plotting.lyapunov_convergence(spectrum([0.1, -0.1])),
        plotting.period_energy(family()),
        plotting.orbit_classes(synthetic_atlas(), "energy", "neurons"),
        plotting.chaos_atlas(synthetic_atlas())[0, 0],
    ]
    assert all(plt.fignum_exists(axes.figure.number) for axes in made)
    plt.close("all")
