"""Activations against many-digit references, their gradients, and functions of one's own."""

import math
import pickle

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import jaxosc as jo

HALF = mp.mpf(1) / 2

# sigma, sigma' and Phi in as many digits as it takes
REFERENCES = {
    jo.Identity: (lambda y: y, lambda y: 1, lambda y: y * y / 2),
    jo.Tanh: (mp.tanh, lambda y: mp.sech(y) ** 2, lambda y: mp.log(mp.cosh(y))),
    jo.Arctan: (mp.atan, lambda y: 1 / (1 + y * y), lambda y: y * mp.atan(y) - mp.log1p(y * y) / 2),
    jo.Erf: (
        mp.erf,
        lambda y: 2 * mp.exp(-y * y) / mp.sqrt(mp.pi),
        lambda y: y * mp.erf(y) + mp.expm1(-y * y) / mp.sqrt(mp.pi),
    ),
    jo.Softsign: (
        lambda y: y / (1 + abs(y)),
        lambda y: 1 / (1 + abs(y)) ** 2,
        lambda y: abs(y) - mp.log1p(abs(y)),
    ),
    jo.Algebraic: (
        lambda y: y / mp.sqrt(1 + y * y),
        lambda y: 1 / mp.sqrt(1 + y * y) ** 3,
        lambda y: mp.sqrt(1 + y * y) - 1,
    ),
    jo.HardTanh: (
        lambda y: max(-1, min(1, y)),
        lambda y: int(abs(y) <= 1),
        lambda y: y * y / 2 if abs(y) < 1 else abs(y) - HALF,
    ),
    jo.ReLU: (lambda y: max(y, 0), lambda y: int(y > 0), lambda y: max(y, 0) ** 2 / 2),
    jo.RectifiedTanh: (
        lambda y: mp.tanh(max(y, 0)),
        lambda y: mp.sech(y) ** 2 if y > 0 else 0,
        lambda y: mp.log(mp.cosh(max(y, 0))),
    ),
    jo.Sigmoid: (
        lambda y: 1 / (1 + mp.exp(-y)),
        lambda y: 1 / (2 * mp.cosh(y / 2)) ** 2,
        lambda y: mp.log1p(mp.exp(y)) - mp.log(2),
    ),
    jo.ELU: (
        lambda y: y if y > 0 else mp.expm1(y),
        lambda y: 1 if y > 0 else mp.exp(y),
        lambda y: y * y / 2 if y > 0 else mp.expm1(y) - y,
    ),
}
ODD = [jo.Identity, jo.Tanh, jo.Arctan, jo.Erf, jo.Softsign, jo.Algebraic, jo.HardTanh]
METHODS = {"value": "__call__", "derivative": "derivative", "potential": "potential"}

every_class = pytest.mark.parametrize("cls", REFERENCES, ids=lambda cls: cls.__name__)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def samples(dtype):
    """|y| from 1e-8 to 1e4 with both signs, denser where formulas change hands (1/2, 1, 2), and 0."""
    positive = np.concatenate([np.geomspace(1e-8, 1e4, 150), np.linspace(0.01, 4, 150), np.linspace(4.1, 30, 60)])
    return np.concatenate([-positive, [0.0], positive]).astype(dtype)


def softened(y):
    return y / (1.0 + y * y) ** 0.25


# Values


@every_dtype
@every_class
@pytest.mark.parametrize("method", METHODS)
def test_against_many_digits(cls, method, dtype):
    y = samples(dtype)
    got = np.asarray(jax.jit(getattr(cls(), METHODS[method]))(jnp.asarray(y)))
    assert got.dtype == dtype
    # The worst measured is 5 eps (tanh's potential): expm1 in float32 is off by 2.3 eps and enters squared. Below the
    # smallest normal number XLA flushes to 0, hence the absolute term.
    eps, tiny = float(np.finfo(dtype).eps), float(np.finfo(dtype).tiny)
    with mp.workdps(50):  # log(cosh(y)) loses 16 digits at 1e-8
        reference = [REFERENCES[cls][list(METHODS).index(method)](mp.mpf(float(value))) for value in y]
        off = [float(abs(mp.mpf(float(g)) - r) / (eps * abs(r) + tiny)) for g, r in zip(got, reference, strict=True)]
    if method == "potential":
        assert got[y == 0] == 0.0
    worst = int(np.argmax(off))
    assert off[worst] <= 6, f"{off[worst]:.2f} eps at y = {y[worst]}"


@every_dtype
@pytest.mark.parametrize("cls", ODD, ids=lambda cls: cls.__name__)
def test_odd_classes_are_odd_to_the_last_bit(cls, dtype):
    y, sigma = jnp.asarray(samples(dtype)), cls()
    for method, sign in ((sigma, -1), (sigma.derivative, 1), (sigma.potential, 1)):
        compiled = jax.jit(method)
        np.testing.assert_array_equal(compiled(-y), sign * compiled(y))


@every_class
def test_far_out_everything_stays_finite(cls):
    y = jnp.asarray([-1e18, -1e12, 1e12, 1e18], jnp.float32)
    for out in jax.jit(lambda y: [getattr(cls(), method)(y) for method in METHODS.values()])(y):
        assert bool(jnp.isfinite(out).all())
    if cls.bounded:  # a saturated activation must not fall back to 0 where y^2 overflows
        assert float(cls()(jnp.float32(3e38))) == pytest.approx(float(cls()(jnp.float32(1e18))))


@every_dtype
@every_class
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 1, 4)])
def test_any_shape_and_the_dtype_follows(cls, shape, dtype):
    for method in METHODS.values():
        out = jax.eval_shape(getattr(cls(), method), jax.ShapeDtypeStruct(shape, dtype))
        assert out.shape == shape and out.dtype == dtype


# Gradients


@every_dtype
@every_class
def test_gradients_are_the_methods_and_finite(cls, dtype):
    sigma, eps = cls(), float(np.finfo(dtype).eps)
    y = jnp.concatenate([jnp.asarray(samples(dtype)), jnp.asarray([-1.0, 1.0, -1e18, 1e18], dtype)])

    @jax.jit
    def slopes(y):
        functions = (sigma.potential, sigma, sigma.derivative)
        reverse = [jax.vmap(jax.grad(function))(y) for function in functions]
        forward = [jax.jvp(function, (y,), (jnp.ones_like(y),))[1] for function in functions]
        return reverse, forward, sigma(y), sigma.derivative(y)

    # Phi' is sigma by rule. sigma' may be JAX's own rule, where 1 - tanh^2 and sigma (1 - sigma) lose digits far out:
    # right to twice the error of tanh (3.5 eps in XLA) for a sigma' of size 1.
    reverse, forward, value, derivative = slopes(y)
    for first, second, bend in (reverse, forward):
        np.testing.assert_allclose(first, value, rtol=2 * eps)
        np.testing.assert_allclose(second, derivative, rtol=0, atol=8 * eps)
        assert bool(jnp.isfinite(bend).all())
    np.testing.assert_allclose(reverse[2], forward[2], rtol=0, atol=4 * eps)  # rounded in another order


@every_class
def test_second_derivative_of_the_potential(cls):
    y = jnp.asarray([-2.0, -0.3, 0.0, 0.7, 5.0])
    np.testing.assert_allclose(jax.vmap(jax.hessian(cls().potential))(y), cls().derivative(y), rtol=1e-13, atol=1e-15)


# Modules


@every_class
def test_no_parameters_hashable_and_picklable(cls):
    sigma = cls()
    assert jax.tree.leaves(sigma) == []
    assert jax.tree.structure(sigma) == jax.tree.structure(cls())
    assert hash(sigma) == hash(cls()) and sigma == cls()
    assert pickle.loads(pickle.dumps(sigma)) == sigma
    assert all(isinstance(getattr(cls, fact), bool) for fact in ("odd", "bounded", "continuous", "monotone"))


def test_two_instances_compile_once():
    traces = []

    @jax.jit
    def energy(sigma, y):
        traces.append(sigma)
        return sigma.potential(y).sum()

    y = jnp.ones(3)
    for sigma in (jo.Tanh(), jo.Tanh(), jo.Elementwise(softened), jo.Elementwise(softened), jo.Erf()):
        energy(sigma, y)
    assert len(traces) == 3


@every_class
def test_jit_and_vmap_change_nothing(cls):
    y = jnp.asarray(samples(np.float64)).reshape(7, -1)

    def all_three(y):
        return cls()(y), cls().derivative(y), cls().potential(y)

    for mapped, plain in zip(jax.jit(jax.vmap(all_three))(y), all_three(y), strict=True):
        # fused multiply-adds of a compiled formula move the last bits
        np.testing.assert_allclose(mapped, plain, rtol=2e-15, atol=1e-300)


# Functions of one's own

SMOOTH = [
    (jnp.tanh, jo.Tanh()),
    (jnp.arctan, jo.Arctan()),
    (jax.nn.soft_sign, jo.Softsign()),
    (jax.nn.sigmoid, jo.Sigmoid()),
    (jax.nn.elu, jo.ELU()),
    (jax.nn.relu, jo.ReLU()),
]


@every_dtype
@pytest.mark.parametrize(("fn", "known"), SMOOTH, ids=[type(known).__name__ for _, known in SMOOTH])
def test_elementwise_agrees_with_the_class(fn, known, dtype):
    y, sigma, eps = jnp.asarray(samples(dtype)), jo.Elementwise(fn), float(np.finfo(dtype).eps)
    value, derivative, potential = jax.jit(lambda y: (sigma(y), sigma.derivative(y), sigma.potential(y)))(y)
    right = jax.jit(lambda y: (known(y), known.derivative(y), known.potential(y)))(y)
    np.testing.assert_allclose(value, right[0], rtol=8 * eps)
    np.testing.assert_allclose(derivative, right[1], rtol=0, atol=8 * eps)
    # 5 eps of the class and 6 measured of the quadrature: 21 panels of 16 terms, each rounded
    np.testing.assert_allclose(potential, right[2], rtol=11 * eps)
    assert potential.dtype == dtype


@pytest.mark.parametrize(
    ("fn", "potential", "reach", "error"),
    [
        (jnp.sign, jnp.abs, 1e4, 1e-15),  # a jump at 0 is a panel's end
        (lambda y: jnp.clip(y, -1, 1), jo.HardTanh().potential, 1e4, 4e-4),
        (lambda y: jnp.where(jnp.abs(y) > 1, jnp.sign(y), 0.0), lambda y: jnp.maximum(jnp.abs(y) - 1, 0), 1e4, 5e-2),
        (jnp.sin, lambda y: 2 * jnp.sin(y / 2) ** 2, 20 * np.pi, 2e-8),
        (lambda y: jnp.tanh(1e4 * y), lambda y: jo.Tanh().potential(1e4 * y) / 1e4, 1e4, 3e-10),
    ],
    ids=["jump at 0", "kink", "jump", "ten periods", "steep"],
)
def test_elementwise_is_as_accurate_as_its_docstring_says(fn, potential, reach, error):
    y = jnp.asarray(samples(np.float64))
    y = y[jnp.abs(y) <= reach]
    got, right = jax.jit(jo.Elementwise(fn).potential)(y), potential(y)
    scale = jnp.maximum(jnp.abs(right), jnp.abs(y) * jnp.abs(fn(y)) / 2)  # about the integral of |fn|
    far = scale > 0
    assert float(jnp.max(jnp.abs(got - right)[far] / scale[far])) <= error


def test_gradients_of_elementwise():
    sigma, y = jo.Elementwise(softened), jnp.asarray([-30.0, -1.0, 0.0, 1e-8, 2.5])
    slope = jax.vmap(jax.grad(softened))(y)
    for got, right in (
        (jax.vmap(jax.grad(sigma.potential))(y), softened(y)),
        (jax.jvp(sigma.potential, (y,), (2 * jnp.ones(5),))[1], 2 * softened(y)),
        (jax.jit(jax.vmap(jax.grad(sigma)))(y), slope),
        (sigma.derivative(y), slope),
    ):
        np.testing.assert_allclose(got, right, rtol=2e-15)  # the same operations, compiled in other groups
    assert jax.vmap(sigma.potential)(jnp.ones((2, 3, 4))).shape == (2, 3, 4)


def test_elementwise_maps_functions_of_one_number():
    sigma = jo.Elementwise(lambda y: jax.lax.cond(y > 0, lambda: y, lambda: 0.5 * y))
    y = jnp.asarray([[-2.0, 4.0]])
    np.testing.assert_array_equal(sigma(y), [[-1.0, 4.0]])
    np.testing.assert_allclose(sigma.potential(y), [[1.0, 8.0]], rtol=1e-14)
    np.testing.assert_array_equal(sigma.derivative(y), [[0.5, 1.0]])


def test_elementwise_knows_only_the_facts_it_is_told():
    sigma = jo.Elementwise(softened, odd=True)
    assert (sigma.odd, sigma.bounded, sigma.continuous, sigma.monotone) == (True, None, None, None)
    assert pickle.loads(pickle.dumps(sigma)) == sigma == jo.Elementwise(softened, odd=True)
    assert sigma != jo.Elementwise(softened) and hash(sigma) == hash(jo.Elementwise(softened, odd=True))


class Unhashable:
    __hash__ = None

    def __call__(self, y):
        return y


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (Unhashable(), "hashable"),
        (math.tanh, "jax.numpy"),
        (lambda y: y if y > 0 else 0 * y, "jax.numpy"),
        (lambda y: jnp.stack([y, y]), "shape ()"),
        (lambda y: (y, y), "one real number"),
        (lambda y: y > 0, "one real number"),
        (lambda: 1.0, "trace"),
    ],
)
def test_bad_functions_are_refused_in_one_sentence(fn, words):
    with pytest.raises(jo.JaxoscError) as error:
        jo.Elementwise(fn)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("n", [1, 2, 3, 64, 131])
def test_one_logarithm_gives_the_sum_of_all(n, dtype):
    """The energy of tanh, from states that vanish to states whose product of cosh would overflow."""
    scales = np.array([1e-8, 1e-3, 0.3, 1.9, 2.1, 30.0, 1e4])
    y = jnp.asarray(np.random.default_rng(n).standard_normal((n, 1)) * scales, dtype)
    total, eps = jo.Tanh().potential_sum(y), float(jnp.finfo(dtype).eps)
    each = np.asarray(jo.Tanh().potential(y.astype(jnp.float64)))
    np.testing.assert_allclose(total, each.sum(axis=0), rtol=(12 + 2 * np.log2(n)) * eps)
    assert total.dtype == dtype
    gradient = jax.grad(lambda y: jnp.sum(jo.Tanh().potential_sum(y)))(y)
    np.testing.assert_allclose(gradient, jnp.tanh(y), rtol=4 * eps)
