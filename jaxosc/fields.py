"""Vector fields of the two forms of an oscillating network, with what they conserve.

Current form  dy/dt = W sigma(y) + b + u(t) - leak y  and rate form  dr/dt = sigma(W r + b + u(t)) - leak r, where the
input u(t) is the `drive`. With skew W, or with hidden skewness W = S diag(d), the current form without leak and drive
is a constant Poisson system y' = S grad H(y), so

    H(y) = sum_i d_i Phi(y_i),   Phi' = sigma,

never changes: dH/dt = (d sigma)^T S (d sigma) = 0. Nothing is asked of sigma for that; orbits are bounded when H has
bounded level sets. Casimirs c.y with c in ker(W^T) never change either, whatever sigma is.
Source: Casoni et al., IJCNN 2025 (arXiv 2504.13951) for the networks; Hairer, Lubich, Wanner, *Geometric Numerical
Integration*, VII.2 for constant Poisson systems.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._checks import is_concrete, require_finite
from ._errors import JaxoscError
from .activations import AbstractActivation, Tanh
from .weights import AbstractWeight, Unconstrained


class AbstractField(eqx.Module):
    """What every network field has; also a Diffrax vector field, `field(t, y, args)`.

    A batch of networks is the same module with leading axes in front of every array, as `jax.vmap` over a constructor
    gives it: `batch_shape` tells them. Methods act on one network; use `jax.vmap` for more, or `jo.simulate`.
    """

    weight: eqx.AbstractVar[AbstractWeight]
    activation: eqx.AbstractVar[AbstractActivation]
    bias: eqx.AbstractVar[Float[Array, "*batch n"] | None]
    leak: eqx.AbstractVar[Float[Array, "*#batch"]]
    drive: eqx.AbstractVar[Callable[[Any], Float[Array, " n"]] | None]

    @abc.abstractmethod
    def __call__(self, t: Any, y: Float[Array, " n"], args: Any) -> Float[Array, " n"]:
        """The time derivative of the state `y` (n,), in 1/time; only a drive looks at `t`, nothing at `args`."""

    @abc.abstractmethod
    def energy(self, y: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
        """The conserved energy H of the states `y` (..., n); see the class for the formula and when it is conserved."""

    @abc.abstractmethod
    def casimirs(self, y: Float[Array, "*batch n"]) -> Float[Array, "*batch k"]:
        """The k linear invariants c.y of the states `y` (..., n); k may be 0. See `casimir_vectors`."""

    @property
    def size(self) -> int:
        """The number of neurons n."""
        return self.weight.size

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of a batch of networks; `()` for a single one."""
        bias_batch = () if self.bias is None else self.bias.shape[:-1]
        return np.broadcast_shapes(self.weight.batch_shape, bias_batch, self.leak.shape)

    @property
    def dtype(self) -> np.dtype:
        """The floating dtype of the parameters."""
        return _dtype_of(self.weight)

    def input_at(self, t: Any) -> Float[Array, "*#batch n"] | None:
        """b + u(t), what the network receives from outside at time `t`; None when there is neither."""
        return driven_bias(self.bias, self.drive, t)


class CurrentRNN(AbstractField):
    """Current form: dy/dt = W sigma(y) + b + u(t) - leak y.

    `energy(y)` is H(y) = sum_i d_i Phi(y_i), d = 1 unless the weight is `Symmetrizable`. With a bias in the range of
    S it is H(y) + c.y where S c = b (c by least squares; if b is not in the range no such energy is conserved). A leak
    makes it decay: dH/dt = -leak sum_i d_i y_i sigma(y_i) <= 0 for odd increasing sigma and no bias.

    **Arguments:**

    - `weight`: an `AbstractWeight`, or an array (n, n), which becomes `jo.weights.Unconstrained`.
    - `activation`: elementwise sigma; default `jo.Tanh()`.
    - `bias`: (n,) or None.
    - `leak`: rate in 1/time, a scalar (or one per network of a batch).
    - `drive`: u(t), a function of the time that returns (n,), or None. A batch of networks shares it. An Equinox module
      may carry parameters, which are then differentiable. While it drives, `energy` is not conserved.

    **Raises:** `JaxoscError` for a bias or drive of another length and for NaN in any parameter.
    """

    weight: AbstractWeight
    activation: AbstractActivation
    bias: Float[Array, "*batch n"] | None
    leak: Float[Array, "*#batch"]
    drive: Callable[[Any], Float[Array, " n"]] | None

    def __init__(self, weight: Any, activation: Any = None, bias: Any = None, leak: Any = 0.0, drive: Any = None):
        parts = _checked_parts(weight, activation, bias, leak, drive)
        self.weight, self.activation, self.bias, self.leak, self.drive = parts

    def __call__(self, t: Any, y: Float[Array, " n"], args: Any) -> Float[Array, " n"]:
        """dy/dt at the state `y` (n,)."""
        require_size(self, y)
        rate = self.weight.matvec(self.activation(y)) - self.leak * y
        inflow = self.input_at(t)
        return rate if inflow is None else rate + inflow

    def energy(self, y: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
        """H of the states `y` (..., n); see the class for the bias."""
        require_size(self, y)
        energy = weighted_sum(self.activation.potential(y), self.weight.energy_weights())
        shift = energy_shift(self)
        return energy if shift is None else energy + weighted_sum(y, shift)

    def casimirs(self, y: Float[Array, "*batch n"]) -> Float[Array, "*batch k"]:
        """c.y of the states `y` (..., n), conserved when there is no leak."""
        require_size(self, y)
        return linear_values(casimir_vectors(self), y)


class RateRNN(AbstractField):
    """Rate form: dr/dt = sigma(W r + b + u(t)) - leak r.

    Without drive y = W r + b obeys the current form without bias, so `energy(r)` is H(W r + b); what lies in ker W is
    seen in r but not in y. `casimirs(r)` are c.(W r + b): the same number c.b for every r, which makes them a check and
    not news. With n odd and c.b != 0 the state r drifts linearly along c although y does not.

    **Arguments** and **Raises:** as `jo.CurrentRNN`; leak pulls r to zero and y to b.
    """

    weight: AbstractWeight
    activation: AbstractActivation
    bias: Float[Array, "*batch n"] | None
    leak: Float[Array, "*#batch"]
    drive: Callable[[Any], Float[Array, " n"]] | None

    def __init__(self, weight: Any, activation: Any = None, bias: Any = None, leak: Any = 0.0, drive: Any = None):
        parts = _checked_parts(weight, activation, bias, leak, drive)
        self.weight, self.activation, self.bias, self.leak, self.drive = parts

    def __call__(self, t: Any, y: Float[Array, " n"], args: Any) -> Float[Array, " n"]:
        """dr/dt at the state r, here called `y` (n,) as Diffrax does."""
        require_size(self, y)
        inflow = self.input_at(t)
        argument = self.weight.matvec(y)
        return self.activation(argument if inflow is None else argument + inflow) - self.leak * y

    def preactivation(self, r: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
        """y = W r + b of the states `r` (..., n): the state of the equivalent current form (without drive)."""
        y = jnp.vectorize(self.weight.matvec, signature="(n)->(n)")(r)
        return y if self.bias is None else y + jnp.broadcast_to(self.bias, y.shape)

    def energy(self, y: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
        """H(W r + b) of the states r, here called `y` (..., n)."""
        require_size(self, y)
        return weighted_sum(self.activation.potential(self.preactivation(y)), self.weight.energy_weights())

    def casimirs(self, y: Float[Array, "*batch n"]) -> Float[Array, "*batch k"]:
        """c.(W r + b) of the states r, here called `y` (..., n)."""
        require_size(self, y)
        return linear_values(casimir_vectors(self), self.preactivation(y))


def casimir_vectors(field: AbstractField) -> Float[np.ndarray, "k n"]:
    """An orthonormal basis of the vectors c whose c.y is conserved: ker(W^T), and c.b = 0 in the current form.

    An odd n has at least one with skew W. Rank is decided at n eps times the largest singular value, in float64.

    **Raises:** `JaxoscError` for a batch of networks (k may differ from one to the next) and inside a JAX
    transformation, where k cannot be known: there compute the vectors first and multiply them with y.
    """
    if not is_concrete(field.weight) or field.batch_shape:
        what = "a batch of networks" if field.batch_shape else "a traced weight"
        raise JaxoscError(
            f"Got {what}, expected one concrete network, since the number of Casimirs depends on the values of W:"
            " call casimir_vectors(field) on each network outside jit/vmap and use vectors @ y inside."
        )
    matrix = np.asarray(field.weight.matrix())
    left, singular, _ = np.linalg.svd(matrix.astype(np.float64))
    tolerance = 10 * matrix.shape[0] * np.finfo(matrix.dtype).eps * max(singular.max(), np.finfo(matrix.dtype).tiny)
    kernel = left[:, singular <= tolerance].T
    if field.bias is not None and isinstance(field, CurrentRNN) and len(kernel):
        along_bias = kernel @ np.asarray(field.bias, np.float64)
        if np.abs(along_bias).max() > tolerance:
            rotation = np.linalg.svd(along_bias[None, :])[2]
            kernel = rotation[1:] @ kernel
    return kernel


def energy_shift(field: AbstractField) -> Float[Array, " n"] | None:
    """The vector c (n,) with S c = b that a bias adds to the energy as c.y; None without bias and in the rate form.

    S = W diag(1/d). Of all solutions it takes the shortest; where b is not in the range of S it is the least-squares
    one and H + c.y is not conserved.
    """
    if field.bias is None or isinstance(field, RateRNN):
        return None
    return solve_energy_shift(field.weight.matrix(), field.weight.energy_weights(), field.bias)


def solve_energy_shift(
    matrix: Float[Array, "n n"], energy_weights: Float[Array, " n"] | None, bias: Float[Array, " n"]
) -> Float[Array, " n"]:
    """The shortest least-squares solution c (n,) of S c = bias with S = matrix diag(1/energy_weights)."""
    skew = matrix if energy_weights is None else matrix / energy_weights[None, :]
    # By the pseudo-inverse, whose derivative has a formula of its own (Golub and Pereyra 1973): that of `lstsq` goes
    # through singular values, which are equal in pairs for skew S, and divides by their differences.
    return jnp.matmul(jnp.linalg.pinv(skew), bias, precision="highest")


def driven_bias(
    bias: Float[Array, "*batch n"] | None, drive: Callable[[Any], Array] | None, t: Any
) -> Float[Array, "*batch n"] | None:
    """bias + drive(t), where either may be missing; None when both are."""
    if drive is None:
        return bias
    inflow = drive(t)
    if bias is None:
        return inflow
    return bias + jnp.broadcast_to(inflow.astype(bias.dtype), bias.shape)


def weighted_sum(values: Float[Array, "*batch n"], weights: Float[Array, " n"] | None) -> Float[Array, "*batch"]:
    """sum_i weights_i values_i over the last axis; weights None means ones."""
    if weights is None:
        return jnp.sum(values, axis=-1)
    return jnp.matmul(values, weights, precision="highest")


def linear_values(vectors: Float[np.ndarray, "k n"], y: Float[Array, "*batch n"]) -> Float[Array, "*batch k"]:
    """The k scalar products of each state (..., n) with the rows of `vectors`."""
    return jnp.matmul(y, jnp.asarray(vectors.T, y.dtype), precision="highest")


def require_size(field: AbstractField, y: Any) -> None:
    """Raise one sentence unless the last axis of `y` has the field's n entries."""
    shape = jnp.shape(y)
    if not shape or shape[-1] != field.size:
        raise JaxoscError(
            f"Got a state of shape {shape}, expected (..., {field.size}) for a network of n = {field.size} neurons:"
            " put the neurons on the last axis."
        )


def _dtype_of(tree: Any) -> np.dtype:
    return jnp.result_type(*[leaf for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)])


def _checked_parts(weight: Any, activation: Any, bias: Any, leak: Any, drive: Any) -> tuple[Any, Any, Any, Any, Any]:
    if not isinstance(weight, AbstractWeight):
        weight = Unconstrained(jnp.asarray(weight))
    activation = Tanh() if activation is None else activation
    if not isinstance(activation, AbstractActivation):
        raise JaxoscError(
            f"Got the activation {activation!r}, expected an instance such as jo.Tanh(): wrap a function of your own"
            " in jo.Elementwise(fn)."
        )
    dtype = _dtype_of(weight)
    if bias is not None:
        bias = _constant(bias, dtype)
        if bias.ndim == 0 or bias.shape[-1] != weight.size:
            raise JaxoscError(
                f"Got a bias of shape {bias.shape}, expected (..., {weight.size}) for n = {weight.size} neurons."
            )
        require_finite("bias", bias)
    leak = _constant(leak, dtype)
    require_finite("leak", leak)
    return weight, activation, bias, leak, _checked_drive(drive, weight.size, dtype)


def _constant(value: Any, dtype: np.dtype) -> Array:
    """An array that is concrete inside `jax.jit` too, if `value` is: a leak known to be zero is to cost nothing."""
    if not is_concrete(value):
        return jnp.asarray(value, dtype)
    with jax.ensure_compile_time_eval():
        return jnp.asarray(value, dtype)


class _Drive(eqx.Module):
    """A drive whose result has the dtype of the network."""

    function: Callable[[Any], Any]
    dtype: np.dtype = eqx.field(static=True)

    def __call__(self, t: Any) -> Float[Array, " n"]:
        return jnp.asarray(self.function(t), self.dtype)


def _checked_drive(drive: Any, size: int, dtype: np.dtype) -> _Drive | None:
    """The drive as a module whose leaves are arrays: what JAX can carry, whatever function it was."""
    if drive is None or isinstance(drive, _Drive):
        return drive
    if not callable(drive):
        raise JaxoscError(f"Got the drive {drive!r}, expected a function of the time: pass lambda t: ... or None.")
    function: Any = drive if isinstance(drive, eqx.Module) else jax.tree_util.Partial(drive)
    wrapped = _Drive(function, dtype)
    shape = jax.eval_shape(wrapped, jax.ShapeDtypeStruct((), dtype)).shape
    if shape != (size,):
        raise JaxoscError(
            f"Got a drive that returns shape {shape}, expected ({size},) for n = {size} neurons: return one"
            " input for each."
        )
    return wrapped
