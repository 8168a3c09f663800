"""What a weight is: parameters that give one n x n matrix of a known structure.

A weight holds free parameters, never the matrix. The structure (skew, banded, low rank, ...) is then true of
every value of the parameters, bit for bit, so gradient steps, rescaling and random draws cannot leave it.

A batch of weights is the same module with leading axes in front of every parameter, as `jax.vmap` makes it:

    weights = jax.vmap(lambda key: DenseSkew.random(key, 8))(keys)      # DenseSkew(n=8, batch=(64,), float32)
    jax.vmap(lambda weight, v: weight.matvec(v))(weights, vectors)      # vectors (64, 8)

All random laws share one meaning of `gain`, see `jaxosc.weights`.
"""

import abc
import dataclasses
from typing import Any, Self, SupportsIndex

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray


class AbstractWeight(eqx.Module):
    """The interface of weights. A weight of your own fills in the abstract members and nothing else.

    Class facts:
        skew: `matrix()` is exactly skew (`W.T == -W`, zero diagonal) whatever the parameters are.
        hollow: the diagonal of `matrix()` is exactly zero whatever the parameters are.
        law: one sentence that declares the distribution of `random`.

    `size` is the number n of neurons, static.
    """

    skew: eqx.AbstractClassVar[bool]
    hollow: eqx.AbstractClassVar[bool]
    law: eqx.AbstractClassVar[str]
    size: eqx.AbstractVar[int]

    @property
    @abc.abstractmethod
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes in front of every parameter; `()` for a single matrix."""

    @abc.abstractmethod
    def matrix(self) -> Float[Array, "*batch n n"]:
        """The matrix W; for a batch of weights the leading axes stay in front."""

    @abc.abstractmethod
    def matvec(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        """`W @ v` of a single weight and a single vector, at full precision; use `jax.vmap` for many.

        Raises `JaxoscError` when `v` has another length, or when the weight is a batch.
        """

    @abc.abstractmethod
    def scaled(self, gain: ArrayLike) -> Self:
        """The weight of the matrix `gain * W`, same class and dtype.

        The gain is a scalar, or has one value for each member of a batch (shape `batch_shape`). Raises
        `JaxoscError` for a gain of another shape, or one that is not finite.
        """

    @classmethod
    @abc.abstractmethod
    def random(cls, key: PRNGKeyArray, n: SupportsIndex, *, gain: ArrayLike = 1.0, dtype: DTypeLike = float) -> Self:
        """A random weight of n neurons with the law that `law` declares; a pure function of its arguments.

        `dtype=float` is the session's default float. The draws in float32 are not the rounded draws in
        float64. Raises `JaxoscError` for n below 2, a dtype that is not a float, or float64 in a session
        without it.
        """

    # Concrete although one class overrides it: a weight of a user's own need not know about energies.
    def energy_weights(self) -> Float[Array, "*batch n"] | None:
        """The d > 0 of W = S diag(d): `sum_i d_i potential(y_i)` is conserved; None elsewhere."""
        return None

    @property
    def colours(self) -> tuple[tuple[int, ...], ...] | None:
        """Groups of neurons that never meet: W[i, j] = 0 within a group, each neuron is in one. None: not known."""
        return None

    @property
    def dtype(self) -> jnp.dtype:
        """The float type of the parameters."""
        return jnp.result_type(*jax.tree.leaves(self))

    def __repr__(self) -> str:
        leaves = jax.tree.leaves(self)
        # Tree operations put None, axis numbers or names in the place of arrays.
        if not leaves or not all(isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) for leaf in leaves):
            return eqx.tree_pformat(self)
        facts = [f"n={self.size}"]
        facts += [
            f"{field.name}={_shown(getattr(self, field.name))}"
            for field in dataclasses.fields(self)
            if field.metadata.get("static", False) and field.name != "size"
        ]
        if self.batch_shape:
            facts.append(f"batch={self.batch_shape}")
        facts.append(jnp.result_type(*leaves).name)
        return f"{type(self).__name__}({', '.join(facts)})"


def _shown(fact: Any) -> Any:
    """A number as it is, a list as its length."""
    return len(fact) if isinstance(fact, tuple) else fact
