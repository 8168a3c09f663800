"""How far the best linear readout of a network's run is from the samples, as residuals that can be differentiated.

Readout and offset enter linearly, so they are no unknowns: for every network and start they are the solution of a
linear least squares problem, and what that cannot reach is the residual (variable projection, Golub and Pereyra 1973).
Gauss and Newton's method then has a valley less to follow, and the readout is never stale.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from ..fields import CurrentRNN
from ..simulate import simulate


class Samples(eqx.Module):
    """What is fitted: `values` (times, channels), so many steps of size `dt` from one to the next.

    `mask` (times,) is 1 where samples count, 0 beyond the horizon: as an array, so that a longer one compiles nothing.
    """

    values: Float[Array, "times channels"]
    mask: Float[Array, " times"]
    dt: float = eqx.field(static=True)
    every: int = eqx.field(static=True)
    solver: Any
    adjoint: Any = eqx.field(static=True, default=None)

    @property
    def duration(self) -> float:
        """From the first sample to the last."""
        return self.dt * self.every * (self.values.shape[0] - 1)


class Unknowns(eqx.Module):
    """A network and a start as a flat vector z (count,) of numbers of order one; zeros are the start of the search.

    A change of a frequency by 1/duration is as large as one of the state by itself, so weights count in units of that:
    then one step size, and one damping, suits them all. `gain_only`: z (1,) scales all of W and nothing else.
    """

    field: CurrentRNN
    y0: Float[Array, " n"]
    duration: float = eqx.field(static=True)
    gain_only: bool = eqx.field(static=True)
    with_start: bool = eqx.field(static=True)

    @property
    def start(self) -> Float[Array, " count"]:
        """z = 0, of the right length, in the session's widest type whatever that of the network is."""
        count = 1 if self.gain_only else ravel_pytree(self._free())[0].size
        return jnp.zeros((count,), jnp.result_type(float))

    def network(self, z: Float[Array, " count"]) -> tuple[CurrentRNN, Float[Array, " n"]]:
        """The network and start that z stands for."""
        unit = 1 / (self.speed() * self.duration)
        z = z.astype(self.y0.dtype)
        if self.gain_only:
            weight = self.field.weight.scaled(1 + unit * z[0])
            return eqx.tree_at(lambda field: field.weight, self.field, weight), self.y0
        parts, free = self._free(), ravel_pytree(self._free())[1](z)
        weight_unit = unit * _root_mean_square(parts[0])
        weight = jax.tree.map(lambda value, change: value + weight_unit * change, parts[0], free[0])
        field = eqx.tree_at(lambda field: field.weight, self.field, eqx.combine(weight, self.field.weight))
        if self.field.bias is not None:
            # b counts like W sigma(y), of which it is a part.
            field = eqx.tree_at(lambda field: field.bias, field, self.field.bias + free[1] / self.duration)
        y0 = self.y0 + _root_mean_square(self.y0) * free[2] if self.with_start else self.y0
        return field, y0

    def speed(self) -> Float[Array, ""]:
        """The largest angular frequency of the linear network."""
        return jnp.linalg.norm(self.field.weight.matrix(), 2)

    def _free(self) -> tuple[Any, Any, Any]:
        weight = eqx.filter(self.field.weight, eqx.is_inexact_array)
        return weight, self.field.bias, self.y0 if self.with_start else None


def _root_mean_square(tree: Any) -> Float[Array, ""]:
    flat = ravel_pytree(tree)[0]
    return jnp.sqrt(jnp.mean(flat * flat))


def states_at(field: CurrentRNN, y0: Array, samples: Samples) -> Float[Array, "times n"]:
    """The states of the run from `y0` at the times of the samples."""
    run = simulate(
        field,
        y0,
        t1=samples.duration,
        dt=samples.dt,
        save_every=samples.every,
        solver=samples.solver,
        adjoint=samples.adjoint,
        throw=False,
    )
    return run.ys


def residuals(z: Float[Array, " count"], samples: Samples, unknowns: Unknowns) -> Float[Array, "rows channels"]:
    """What the best readout leaves of the samples, each channel in units of its size; squares add to the loss."""
    states = states_at(*unknowns.network(z), samples)
    columns = jnp.concatenate([states, jnp.ones_like(states[:, :1])], axis=1) * samples.mask[:, None]
    columns = columns / jax.lax.stop_gradient(jnp.linalg.norm(columns, axis=0))[None]
    wanted = samples.values * samples.mask[:, None]
    # Columns may depend on each other (a Casimir and the offset): a ridge keeps the factorisation differentiable.
    count = columns.shape[1]
    dtype = columns.dtype
    columns = jnp.concatenate([columns, ridge(dtype) * jnp.eye(count, dtype=dtype)])
    wanted = jnp.concatenate([wanted, jnp.zeros((count, wanted.shape[1]), dtype)])
    basis, _ = jnp.linalg.qr(columns)
    reached = jnp.matmul(basis, jnp.matmul(basis.T, wanted, precision="highest"), precision="highest")
    size = jax.lax.stop_gradient(jnp.sqrt(jnp.sum(samples.mask) * wanted.shape[1]))
    return ((wanted - reached) / size).astype(z.dtype)


def loss(z: Float[Array, " count"], samples: Samples, unknowns: Unknowns) -> Float[Array, ""]:
    """The mean square that the best readout leaves, 1 for a readout of nothing."""
    return jnp.sum(residuals(z, samples, unknowns) ** 2)


def ridge(dtype: Any) -> float:
    """Of columns of norm 1: it costs its square of their length, which is below what rounding costs."""
    return math.sqrt(float(np.finfo(dtype).eps)) * 30


def masked(samples: Samples, count: int) -> Samples:
    """The samples of which only the first `count` matter."""
    inside: Bool[Array, " times"] = jnp.arange(samples.values.shape[0]) < count
    return eqx.tree_at(lambda samples: samples.mask, samples, inside.astype(samples.values.dtype))
