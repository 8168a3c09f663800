"""Pictures of single orbits, energies and spectra draw the numbers that they were given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from figures import circle, drawn, new_figure
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from synthetic import synthetic_sweep

import jaxosc as jo
from jaxosc import plotting
from jaxosc.plotting.spectrum import amplitude_spectrum, spectral_peaks


@pytest.fixture(scope="module")
def sweep():
    return synthetic_sweep()


def pair(omega: float = 1.0) -> jo.CurrentRNN:
    return jo.CurrentRNN(jo.weights.DenseSkew.from_matrix(jnp.array([[0.0, omega], [-omega, 0.0]])))


def orbit_of(axes: Axes) -> LineCollection:
    (orbit,) = [c for c in axes.collections if c.get_gid() == "orbit"]
    return orbit


def test_phase_portrait_draws_the_orbit_and_its_level_sets():
    ts, ys = circle()
    with plotting.style():
        axes = plotting.phase_portrait(ys, ts=ts, field=pair(), ax=new_figure(4).add_subplot())
    segments = np.asarray(orbit_of(axes).get_segments())
    np.testing.assert_allclose(segments[:, 0], ys[:-1], rtol=1e-12)
    np.testing.assert_allclose(segments[:, 1], ys[1:], rtol=1e-12)
    np.testing.assert_allclose(orbit_of(axes).get_array(), ts[:-1], rtol=1e-12)
    contours = [c for c in axes.collections if c.get_gid() != "orbit"]
    own = contours[-1].get_paths()[0].vertices  # the start's own level set
    energy = jax.vmap(pair().energy)(jnp.asarray(own))
    np.testing.assert_allclose(energy, float(pair().energy(jnp.asarray(ys[0]))), rtol=2e-3)  # 121-point grid
    np.testing.assert_allclose(np.ravel(axes.lines[0].get_data()), ys[0], rtol=1e-12)
    drawn(axes.figure)


def test_phase_portrait_of_many_neurons_is_the_plane_of_largest_scatter():
    key = jax.random.key(0)
    basis = np.linalg.qr(np.asarray(jax.random.normal(key, (279, 279))))[0]
    _, ys = circle()
    states = np.concatenate([3 * ys, 1e-3 * np.ones((200, 277))], axis=1) @ basis.T
    axes = plotting.phase_portrait(states, ax=new_figure(4).add_subplot())
    plane = np.asarray(orbit_of(axes).get_segments())[:, 0]
    np.testing.assert_allclose(np.linalg.norm(plane, axis=1), 3.0, rtol=1e-6)
    assert "component 1 (50 %)" in axes.get_xlabel()
    chosen = plotting.phase_portrait(states, coordinates=(5, 278), ax=new_figure(4).add_subplot())
    np.testing.assert_allclose(np.asarray(orbit_of(chosen).get_segments())[:, 0], states[:-1, [5, 278]], rtol=1e-12)
    assert (chosen.get_xlabel(), chosen.get_ylabel()) == ("y[5]", "y[278]")


def test_phase_portrait_stops_where_the_orbit_leaves():
    ts = np.linspace(0, 10, 101)
    states = np.stack([0.1 + ts, 0 * ts], axis=-1)
    axes = plotting.phase_portrait(states, ts=ts, limit=2.0, ax=new_figure(4).add_subplot())
    assert len(orbit_of(axes).get_segments()) == 20
    assert any("leaves at t = 2" in text.get_text() for text in axes.texts)
    assert axes.get_xlim() == (-2.0, 2.0)


def test_phase_portrait_takes_a_solution():
    solution = jo.simulate(pair(), jnp.array([1.0, 0.5]), t1=6.0, dt=0.1, save_every=1)
    axes = plotting.phase_portrait(solution, field=pair(), ax=new_figure(4).add_subplot())
    np.testing.assert_allclose(np.asarray(orbit_of(axes).get_segments())[:, 0], solution.ys[:-1], rtol=1e-12)


@pytest.mark.parametrize(
    ("states", "options", "words"),
    [
        (np.zeros((3, 10, 2)), {}, "choose one member"),
        (np.full((10, 2), np.nan), {}, "0 finite states"),
        (np.ones((10, 2)), {"coordinates": (0, 2)}, "two of 0 to 1"),
    ],
)
def test_phase_portrait_says_what_is_wrong(states, options, words):
    with pytest.raises(jo.JaxoscError, match=words):
        plotting.phase_portrait(states, ax=new_figure(4).add_subplot(), **options)


def test_energy_over_time_draws_drifts_and_theory():
    ts = np.linspace(0, 100, 50)
    energies = {
        "euler": 2.0 + 0.5 * ts,
        "splitting": 2.0 + 1e-6 * np.sin(ts),
        "escaped": np.where(ts < 50, 2.0, np.nan),
    }
    axes = plotting.energy_over_time(ts, energies, theory={"a law": 2.0 + 0.5 * ts}, ax=new_figure(5).add_subplot())
    assert axes.get_yscale() == "symlog"
    for line, energy in zip(axes.lines, [*energies.values(), energies["euler"]], strict=True):
        np.testing.assert_allclose(line.get_ydata(), (energy - 2.0) / 2.0, rtol=1e-12)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["euler", "splitting", "escaped", "theory: a law"]
    ticks = axes.get_yticks()
    assert 0.0 in ticks
    assert len(ticks) <= 21
    drawn(axes.figure)


def test_energy_over_time_of_the_energy_itself_and_of_nothing():
    ts = np.linspace(0, 1, 5)
    axes = plotting.energy_over_time(ts, {"a": ts**2 + 1}, relative=False, ax=new_figure(4).add_subplot())
    np.testing.assert_allclose(axes.lines[0].get_ydata(), ts**2 + 1, rtol=1e-12)
    assert axes.get_yscale() == "linear"
    constant = plotting.energy_over_time(ts, {"a": np.ones(5)}, ax=new_figure(4).add_subplot())
    drawn(constant.figure)
    with pytest.raises(jo.JaxoscError, match="at least one line"):
        plotting.energy_over_time(ts, {})
    with pytest.raises(jo.JaxoscError, match=r"shape \(4,\), expected \(5,\)"):
        plotting.energy_over_time(ts, {"a": np.ones(4)})


def test_phase_portraits_share_colours_and_row_frames():
    ts, ys = circle()
    leaving = ys * np.exp(0.3 * ts)[:, None]
    orbits = {"a": {"kept": plotting.Orbit(ys, ts, pair()), "lost": plotting.Orbit(leaving, ts, pair())}}
    orbits["b"] = {"kept": plotting.Orbit(3 * ys, ts), "lost": plotting.Orbit(3 * leaving[:50], ts[:50])}
    figure = new_figure()
    panels = plotting.phase_portraits(orbits, figure=figure)
    assert panels.shape == (2, 2)
    assert {orbit_of(axes).get_clim() for axes in panels.flat} == {(0.0, ts[-1])}
    assert panels[0, 0].get_xlim() == panels[0, 1].get_xlim() == pytest.approx((-1.8, 1.8), rel=1e-12)
    assert panels[1, 0].get_xlim() == pytest.approx((-5.4, 5.4), rel=1e-12)
    np.testing.assert_allclose(np.asarray(orbit_of(panels[1, 0]).get_segments())[:, 0], 3 * ys[:-1], rtol=1e-12)
    drawn(figure)


def test_energies_over_time_have_a_panel_each_and_one_legend():
    ts = np.linspace(0, 10, 30)
    energies = {
        name: {"euler": 1 + k * ts, "tsit5": 1 - 1e-6 * ts} for k, name in enumerate(("tanh", "erf", "relu"), 1)
    }
    figure = new_figure()
    panels = plotting.energies_over_time(ts, energies, theory={"tanh": {"a law": 1 + ts}}, figure=figure)
    assert panels.shape == (3,)
    assert [len(axes.lines) for axes in panels] == [3, 2, 2]
    np.testing.assert_allclose(panels[1].lines[0].get_ydata(), 2 * ts, rtol=1e-12)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["euler", "tsit5", "theory"]
    drawn(figure)


def test_webp_has_the_width_asked_for_and_the_paper_of_its_style():
    from io import BytesIO

    from matplotlib.pyplot import imread

    for dark in (False, True):
        file, size = plotting.webp(lambda figure: figure.add_subplot().plot([0, 1]), width=4, dpi=50, dark=dark)
        assert size == (200, 150)
        pixels = imread(BytesIO(file), format="webp")
        assert pixels.shape[:2] == (150, 200)
        assert (pixels[0, 0].max() < 60) == dark


def test_exact_zeros_do_not_stretch_axes_and_colours(sweep):
    dead = sweep.copy(deep=True)
    dead["energy_drift_max"][{"activation": 1}] = 0.0
    figure = new_figure()
    panels = plotting.drift_against_dt(dead, figure=figure)
    low, _ = panels[0].get_ylim()
    assert low > 1e-14
    zero = [line for line in panels[1].lines if len(line.get_xdata()) == 9]
    np.testing.assert_allclose(zero[0].get_ydata(), low, rtol=1e-9)  # at the lower edge, not below it
    drawn(figure)
    (mesh,) = [
        c for c in plotting.stability_map(dead, figure=new_figure())[1, 0].collections if isinstance(c, QuadMesh)
    ]
    assert mesh.get_clim()[0] > -14


def test_frequency_spectrum_finds_lines_and_amplitudes():
    ts = np.arange(0, 200, 0.1)
    y = 1.5 + 2.0 * np.sin(2 * np.pi * 0.25 * ts) + 0.1 * np.cos(2 * np.pi * 0.75 * ts)
    axes = plotting.frequency_spectrum(ts, y, ax=new_figure(5).add_subplot())
    frequency, amplitude = axes.lines[0].get_data()
    peaks = spectral_peaks(amplitude, 3)
    np.testing.assert_allclose(frequency[peaks], [0.25, 0.75], rtol=1e-9)  # both fall on bins of 1/200
    np.testing.assert_allclose(amplitude[peaks], [2.0, 0.1], rtol=1e-3)  # the other line's side lobes
    listed = [text.get_text() for text in axes.texts][-1]
    assert "f = 0.25,  period 4" in listed
    drawn(axes.figure)


def test_frequency_spectrum_of_neurons_adds_their_powers():
    ts = np.arange(0, 64, 0.25)
    ys = np.stack([np.sin(2 * np.pi * 0.25 * ts), np.cos(2 * np.pi * 0.25 * ts)], axis=-1)
    _, amplitude = amplitude_spectrum(ts, ys)
    np.testing.assert_allclose(amplitude.max(), np.sqrt(2), rtol=1e-9)


@pytest.mark.parametrize(
    ("ts", "y", "words"),
    [
        (np.arange(4.0), np.ones(4), "8 times or more"),
        (np.arange(9.0) ** 2, np.ones(9), "equal spacing"),
        (np.arange(9.0), np.full(9, np.nan), "finite states"),
        (np.arange(9.0), np.ones(8), "with 8 times"),
    ],
)
def test_frequency_spectrum_says_what_is_wrong(ts, y, words):
    with pytest.raises(jo.JaxoscError, match=words):
        plotting.frequency_spectrum(ts, y)
