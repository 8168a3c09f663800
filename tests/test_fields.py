"""Fields: their equations, what they conserve, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxosc as jo
from jaxosc.fields import energy_shift

N = 5
Y = jnp.asarray([0.3, -1.2, 0.7, 2.0, -0.4])


def dense(n=N, seed=0, gain=1.0):
    return jo.weights.DenseSkew.random(jax.random.key(seed), n, gain=gain)


def energy_rate(field, y):
    """dH/dt along the flow: the directional derivative of H, 0 for a conserved energy."""
    return jax.jvp(field.energy, (y,), (field(0.0, y, None),))[1]


def test_current_form_is_its_equation():
    weight, bias = dense(), jnp.arange(5.0)
    field = jo.CurrentRNN(weight, jo.Arctan(), bias=bias, leak=0.3)
    expected = np.asarray(weight.matrix()) @ np.arctan(np.asarray(Y)) + np.arange(5.0) - 0.3 * np.asarray(Y)
    np.testing.assert_allclose(field(0.0, Y, None), expected, rtol=1e-14, atol=1e-15)


def test_rate_form_is_its_equation():
    weight, bias = dense(), jnp.arange(5.0)
    field = jo.RateRNN(weight, jo.Tanh(), bias=bias, leak=0.3)
    expected = np.tanh(np.asarray(weight.matrix()) @ np.asarray(Y) + np.arange(5.0)) - 0.3 * np.asarray(Y)
    np.testing.assert_allclose(field(0.0, Y, None), expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("activation", [jo.Tanh(), jo.Identity(), jo.ReLU(), jo.Sigmoid(), jo.ELU(), jo.Softsign()])
@pytest.mark.parametrize("form", [jo.CurrentRNN, jo.RateRNN])
def test_energy_is_conserved_along_the_flow_for_every_activation(form, activation):
    field = form(dense(), activation)
    speed = jnp.linalg.norm(field(0.0, Y, None))
    assert speed > 0.1
    # H is a sum of n terms of order 1; its rate is zero up to their rounding.
    assert abs(energy_rate(field, Y)) < 1e-14


def test_energy_with_bias_in_the_range_is_conserved():
    weight = dense(4)
    bias = weight.matvec(jnp.asarray([0.5, -0.2, 0.1, 0.9]))
    field = jo.CurrentRNN(weight, bias=bias)
    plain = jo.CurrentRNN(weight)
    assert abs(energy_rate(field, Y[:4])) < 1e-14
    assert abs(jax.jvp(plain.energy, (Y[:4],), (field(0.0, Y[:4], None),))[1]) > 1e-3
    np.testing.assert_allclose(weight.matvec(energy_shift(field)), bias, atol=1e-14)


@pytest.mark.parametrize("with_bias", [False, True])
def test_symmetrizable_energy_is_conserved(with_bias):
    weight = jo.weights.Symmetrizable.random(jax.random.key(1), 4)
    assert float(jnp.abs(weight.matrix() + weight.matrix().T).max()) > 0.05
    bias = weight.matvec(jnp.asarray([0.5, -0.2, 0.1, 0.9])) if with_bias else None
    field = jo.CurrentRNN(weight, bias=bias)
    assert abs(energy_rate(field, Y[:4])) < 1e-14


def test_leak_dissipates():
    field = jo.CurrentRNN(dense(), leak=0.1)
    expected = -0.1 * float(jnp.sum(Y * jnp.tanh(Y)))
    np.testing.assert_allclose(energy_rate(field, Y), expected, rtol=1e-12)


def test_casimirs_number_and_conservation():
    odd, even = jo.CurrentRNN(dense(5)), jo.CurrentRNN(dense(4))
    assert odd.casimirs(Y).shape == (1,)
    assert even.casimirs(Y[:4]).shape == (0,)
    rate = jax.jvp(odd.casimirs, (Y,), (odd(0.0, Y, None),))[1]
    assert float(jnp.abs(rate).max()) < 1e-15
    blocks = jo.weights.RotationBlocks.random(jax.random.key(0), 7)
    assert jo.CurrentRNN(blocks).casimirs(jnp.ones((3, 7))).shape == (3, 1)


def test_casimirs_with_bias_are_those_orthogonal_to_it():
    matrix = jnp.zeros((5, 5)).at[0, 1].set(1.0).at[1, 0].set(-1.0)  # kernel of dimension 3
    bias = jnp.asarray([0.0, 0.0, 1.0, 1.0, 0.0])
    field = jo.CurrentRNN(matrix, bias=bias)
    vectors = jo.casimir_vectors(field)
    assert vectors.shape == (2, 5)
    np.testing.assert_allclose(vectors @ bias, 0, atol=1e-14)
    np.testing.assert_allclose(vectors @ matrix, 0, atol=1e-14)
    assert jo.casimir_vectors(jo.CurrentRNN(matrix)).shape == (3, 5)


def test_rate_form_maps_to_current_form():
    weight, bias = dense(), jnp.linspace(-1, 1, 5)
    rate, current = jo.RateRNN(weight, bias=bias), jo.CurrentRNN(weight)
    y = rate.preactivation(Y)
    np.testing.assert_allclose(weight.matvec(rate(0.0, Y, None)), current(0.0, y, None), atol=1e-14)
    np.testing.assert_allclose(rate.energy(Y), current.energy(y), rtol=1e-14)


def test_energy_of_many_states_at_once():
    field = jo.CurrentRNN(jo.weights.Symmetrizable.random(jax.random.key(1), 5))
    states = jnp.stack([Y, 2 * Y, -Y]).reshape(3, 1, 5)
    loop = [[field.energy(y) for y in row] for row in states]
    np.testing.assert_allclose(field.energy(states), np.asarray(loop), rtol=1e-14)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtype_follows_the_inputs(dtype):
    weight = jo.weights.DenseSkew.random(jax.random.key(0), 4, dtype=dtype)
    field = jo.CurrentRNN(weight, bias=np.ones(4), leak=0.5)
    y = jnp.ones(4, dtype)
    assert field(0.0, y, None).dtype == field.energy(y).dtype == field.dtype == dtype


def test_batch_shape():
    fields = jax.vmap(lambda key: jo.CurrentRNN(jo.weights.DenseSkew.random(key, 4)))(
        jax.random.split(jax.random.key(0), 3)
    )
    assert fields.batch_shape == (3,)
    assert jo.CurrentRNN(dense(4), leak=jnp.zeros((2, 1))).batch_shape == (2, 1)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: jo.CurrentRNN(dense(), bias=jnp.ones(4)), "bias of shape (4,)"),
        (lambda: jo.CurrentRNN(dense(), bias=jnp.full(5, jnp.nan)), "5 NaN"),
        (lambda: jo.CurrentRNN(dense(), activation=jnp.tanh), "jo.Elementwise"),
        (lambda: jo.CurrentRNN(dense())(0.0, jnp.ones(4), None), "shape (4,)"),
        (lambda: jo.CurrentRNN(dense()).energy(jnp.ones((2, 4))), "shape (2, 4)"),
        (lambda: jax.jit(lambda f: f.casimirs(Y))(jo.CurrentRNN(dense())), "casimir_vectors"),
    ],
)
def test_bad_input_is_one_sentence(make, words):
    with pytest.raises(jo.JaxoscError) as error:
        make()
    assert words in str(error.value) and "\n" not in str(error.value)
