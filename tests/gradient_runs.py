"""Runs and gradients by every adjoint, for the tests that compare them."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from problems import skew

import jaxosc as jo
from jaxosc.weights import DenseSkew

REVERSIBLE, CHECKPOINTED = jo.Reversible(), jo.Checkpointed()

SAID = {None: "a stored tape", REVERSIBLE: "reversible", CHECKPOINTED: "checkpointed"}

ROUNDING = 1e-12
"""Of gradients over some hundred steps, relative to their largest entry; measured 1e-13 and less."""


QUICKLY = {"xla_backend_optimization_level": 0}
"""Compiling takes most of the time here, and a third less of it so."""


def dense(n: int, seed: int = 1) -> DenseSkew:
    """Spectral norm 1."""
    return DenseSkew.from_matrix(skew(n, seed))


def normal(*shape: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def run(field: jo.AbstractField, y0: Any, adjoint: Any, **options: Any) -> jo.Solution:
    """`simulate`, which has to say that it does as it is told."""
    solution = jo.simulate(field, y0, adjoint=adjoint, **{"dt": 0.1, **options})
    assert solution.stats["adjoint"].startswith(SAID[adjoint])
    return solution


def seen(states: jax.Array) -> jax.Array:
    """A loss in which every number of the states (..., times, n) has a weight of its own."""
    weights = np.random.default_rng(states.size).uniform(0.5, 1.5, states.shape)
    return jnp.sum(weights * states * (1 + states))


def gradients(loss: Callable[..., Any], *arguments: Any, adjoints: Any = (None, REVERSIBLE)) -> list[list[np.ndarray]]:
    """The leaves of the gradient of `loss(adjoint, *arguments)` by the arguments, for each adjoint, in one program."""
    over = tuple(range(1, len(arguments) + 1))

    def together(*at):
        return [jax.tree.leaves(jax.grad(loss, over)(adjoint, *at)) for adjoint in adjoints]

    return jax.tree.map(np.asarray, jax.jit(together, compiler_options=QUICKLY)(*arguments))


def assert_same(found: list[np.ndarray], expected: list[np.ndarray], tolerance: float) -> None:
    """Each leaf to `tolerance` of its own largest entry, which is not zero."""
    for one, other in zip(found, expected, strict=True):
        assert np.abs(other).max() > 1e-3
        assert np.abs(one - other).max() <= tolerance * np.abs(other).max()


class Push(eqx.Module):
    """A drive with a parameter (n,)."""

    strength: jax.Array

    def __call__(self, t):
        return self.strength * jnp.sin(1.3 * t + jnp.arange(self.strength.size))
