"""`check_activation`: the facts it measures, and what it says of them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_activations import ODD, every_class, softened

import jaxosc as jo


@every_class
def test_measured_facts_are_the_declared_ones(cls):
    report = jo.check_activation(cls())
    for fact in ("odd", "bounded", "continuous", "monotone"):
        assert getattr(report, fact) == getattr(cls, fact), fact
    assert report.value_at_zero == float(cls()(jnp.zeros(())))
    assert report.level_sets_bounded == (cls in [*ODD, jo.ELU])
    assert report.name == cls.__name__ and report.dtype == "float64"


def test_facts_in_float32():
    with jax.enable_x64(False):
        for cls in (jo.Tanh, jo.Softsign, jo.ELU, jo.Sigmoid):
            report = jo.check_activation(cls())
            assert report.dtype == "float32"
            for fact in ("odd", "bounded", "continuous", "monotone"):
                assert getattr(report, fact) == getattr(cls, fact), (cls, fact)
            assert report.level_sets_bounded == (cls is not jo.Sigmoid)


def logarithmic(y):
    return jnp.sign(y) * jnp.log1p(jnp.abs(y))


@pytest.mark.parametrize(
    ("fn", "odd", "bounded", "continuous", "monotone", "level_sets_bounded"),
    [
        (jnp.sin, True, True, True, False, False),
        (jnp.sign, True, True, False, True, True),
        (jnp.expm1, False, False, True, True, True),
        (jnp.sinh, True, False, True, True, True),
        (logarithmic, True, False, True, True, True),
        (jnp.cbrt, True, False, True, True, True),
        (jax.nn.silu, False, False, True, False, False),
        (jnp.floor, False, False, False, True, True),
        (lambda y: -jnp.tanh(y), True, True, True, False, True),
        (lambda y: jnp.tanh(y) + 2 * jnp.sin(y), True, True, True, False, True),
        (lambda y: y * jnp.cos(y), True, False, True, False, False),
        (lambda y: y / (1 + y * y), True, True, True, False, True),  # Phi grows like a logarithm
        (lambda y: y / (1 + y * y) ** 2, True, True, True, False, False),
        (lambda y: jax.nn.sigmoid(y) - 0.5, True, True, True, True, True),  # odd but for rounding, which is all at 1e-8
        (lambda y: jnp.tanh(y) + 1e-9, False, True, True, True, True),
        (lambda y: jnp.tanh(y) + 1e-5 * (y > 1.2345), False, True, False, True, True),
        (lambda y: jnp.tanh(1e6 * (y - 1)), False, True, True, True, True),  # steep is not a jump
        (math.tanh, True, True, True, True, True),
        (np.arctan, True, True, True, True, True),
        (lambda y: max(y, 0.0), False, False, True, True, False),
        (lambda y: jax.lax.cond(y > 0, lambda: y, lambda: 0.5 * y), False, False, True, True, True),
        (jo.Elementwise(softened), True, False, True, True, True),
    ],
)
def test_facts_of_known_functions(fn, odd, bounded, continuous, monotone, level_sets_bounded):
    report = jo.check_activation(fn)
    assert (report.odd, report.bounded, report.continuous, report.monotone, report.level_sets_bounded) == (
        odd,
        bounded,
        continuous,
        monotone,
        level_sets_bounded,
    )


def test_the_figures_of_a_report():
    step = jo.check_activation(lambda y: jnp.tanh(y) + 0.25 * (y > 1.2345))
    assert step.jump == pytest.approx(0.25, abs=1e-7) and step.jump_at == pytest.approx(1.2345, rel=1e-14)
    assert jo.check_activation(jnp.cbrt).growth == pytest.approx(1 / 3)
    assert jo.check_activation(jnp.sinh).growth == math.inf
    sigmoid = jo.check_activation(jo.Sigmoid())
    assert (sigmoid.value_at_zero, sigmoid.oddness_error, sigmoid.oddness_at) == (0.5, 1.0, 0.0)
    silu = jo.check_activation(jax.nn.silu)
    # Phi(-inf) of y / (1 + exp(-y)) is pi^2 / 12, the lower of its two sides; it falls left of -1.278
    assert silu.barrier == pytest.approx(np.pi**2 / 12, rel=1e-6) and silu.decrease_at < -1.27
    assert jo.check_activation(jnp.sin).barrier == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (jo.Tanh(), "odd, continuous, increasing and bounded; so for skew W the energy H is conserved"),
        (jo.Identity(), "exponentially"),
        (jo.ReLU(), "for n = 2 orbits escape at constant speed though H is conserved"),
        (jo.ELU(), "oddness is not needed"),
        (jnp.sign, "f jumps by 1 at y = 0"),
        (jnp.sin, "H < 2 stay bounded"),
        (jnp.zeros_like, "nothing moves"),
    ],
)
def test_the_verdict_is_one_sentence_that_says_what_breaks(fn, words):
    report = jo.check_activation(fn)
    assert words in report.verdict
    assert report.verdict.endswith(".") and ". " not in report.verdict and "\n" not in report.verdict
    assert report.verdict in str(report) and repr(report) == str(report)


def pair_orbit(sigma, start, time, dt=0.02):
    """The largest |y| of y1' = sigma(y2), y2' = -sigma(y1) in the first half of the time and in the second."""

    def step(y, _):
        first = y[0] + dt * sigma(y[1])
        y = jnp.stack([first, y[1] - dt * sigma(first)])
        return y, jnp.max(jnp.abs(y))

    sizes = jax.lax.scan(step, jnp.asarray(start), length=int(time / dt))[1]
    return float(sizes[: sizes.size // 2].max()), float(sizes[sizes.size // 2 :].max())


@pytest.mark.parametrize(
    ("fn", "start", "stays"),
    [
        (jo.Tanh(), [2.0, 1.0], True),
        (jo.ELU(), [2.0, 1.0], True),
        (jo.ReLU(), [2.0, 1.0], False),
        (jo.RectifiedTanh(), [2.0, 1.0], False),
        (jo.Sigmoid(), [2.0, 1.0], False),
        (jnp.sin, [1.6, 1.1], True),  # H = 1.58, below the barrier 2
        (lambda y: y / (1 + y * y) ** 2, [2.0, 1.0], False),  # H = 0.65, above the barrier 1/2
    ],
)
def test_what_the_verdict_says_is_what_orbits_do(fn, start, stays):
    first, second = pair_orbit(fn, start, 400.0)
    assert first > 1.5  # it moved
    if stays:
        assert second < 1.05 * first
    else:
        assert second > 1.9 * first  # at constant speed twice the time is twice the way
        assert not jo.check_activation(fn).level_sets_bounded


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (jnp.sum, "shape () for input of shape (5,)"),
        (lambda y: jnp.stack([y, y]), "shape (2, 5)"),
        (jax.nn.softmax, "elementwise"),
        (jnp.sqrt, "nan at y ="),
        (lambda y: jnp.exp(y) / (1 + jnp.exp(y)), "nan at y = 7"),
        (lambda y: 1 / y, "inf at y = 0"),
        (lambda y: 1j * y, "expected real numbers"),
        (lambda y: None, "shape ()"),
        (math.exp, "math range error"),
        (lambda y: 1 / float(y), "division by zero"),
        (lambda a, b: a, "cannot be evaluated"),
    ],
)
def test_what_cannot_be_checked_is_said_in_one_sentence(fn, words):
    with pytest.raises(jo.JaxoscError) as error:
        jo.check_activation(fn)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_function_is_refused(fresh_python):
    # in a process of its own: here the checks of the strict session speak first
    script = """
import jaxosc as jo
for make in (jo.Elementwise, jo.check_activation):
    try:
        make(3)
    except jo.JaxoscError as error:
        print(error)
"""
    run = fresh_python("-c", script)
    first, second = run.stdout.splitlines()
    assert first.startswith("Got 3, expected a function") and second.startswith("Got 3, expected an activation")
