"""Pictures of tuning, drawn from made-up results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from figures import drawn, new_figure

import jaxosc as jo
from jaxosc.tuning import FrequencyCurve, Outcome, Tuned


def tuned(history, result):
    """A result of as many members as the history has columns, targets 2."""
    history = jnp.asarray(history, float)
    count = history.shape[1]
    field = jax.vmap(lambda omega: jo.CurrentRNN(jo.weights.RotationBlocks(omega[None])))(jnp.ones(count))
    target = jnp.full(count, 2.0)
    codes = jnp.asarray(result, jnp.int8)
    return Tuned(field, jnp.ones((count, 2)), history[-1], target, 0 * target, codes, history)


def test_a_history_is_a_line_for_each_member_relative_to_its_target():
    result = tuned([[1.0, 4.0], [2.0, 3.0]], [Outcome.reached, Outcome.not_reached])
    figure = new_figure()
    axes = jo.plotting.tuning_history(result, ax=figure.subplots())
    drawn(figure)
    good, bad, level = axes.lines
    np.testing.assert_allclose(good.get_ydata(), [0.5, 1.0])
    np.testing.assert_allclose(bad.get_ydata(), [2.0, 1.5])
    assert (good.get_linestyle(), bad.get_linestyle()) == ("-", "--")
    assert good.get_color() != bad.get_color()
    np.testing.assert_allclose(level.get_ydata(), 1)
    assert axes.texts[0].get_text() == "1 of 2 reached"
    assert axes.get_yscale() == "log"


def test_many_members_are_thinned_and_counted():
    result = tuned(np.linspace(1, 2, 2 * 500).reshape(2, 500), np.zeros(500))
    figure = new_figure()
    axes = jo.plotting.tuning_history(result, ax=figure.subplots())
    assert len(axes.lines) == 201
    assert axes.texts[0].get_text() == "500 of 500 reached, 200 drawn"


def test_a_history_of_nothing_is_one_sentence():
    with pytest.raises(jo.JaxoscError, match="a history without a frequency"):
        jo.plotting.tuning_history(tuned([[np.nan]], [Outcome.at_rest]), ax=new_figure().subplots())


def curve(found):
    """Three orbits."""
    energy = jnp.array([0.1, 0.5, 1.0])
    frequency = jnp.where(jnp.asarray(found), 1 / jo.oracles.pair_period(energy, 2.0), jnp.nan)
    return FrequencyCurve(energy, frequency, -jnp.ones(3), jnp.ones((3, 2)), jnp.asarray(found))


def test_a_curve_shows_the_orbits_that_were_found_and_the_closed_form():
    figure = new_figure()
    axes = jo.plotting.frequency_energy(
        curve([True, False, True]), theory=lambda energy: 1 / jo.oracles.pair_period(energy, 2.0), ax=figure.subplots()
    )
    drawn(figure)
    dots, line = axes.lines
    np.testing.assert_allclose(dots.get_xdata(), [0.1, 1.0])
    np.testing.assert_allclose(dots.get_ydata(), [line.get_ydata()[0], line.get_ydata()[-1]], rtol=1e-12)
    assert dots.get_linestyle() == "None"


def test_a_curve_without_an_orbit_is_one_sentence():
    with pytest.raises(jo.JaxoscError, match="no orbit was found"):
        jo.plotting.frequency_energy(curve([False] * 3), ax=new_figure().subplots())
