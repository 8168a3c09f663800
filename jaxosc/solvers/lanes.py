"""Many networks side by side: the layout in which the engine and the splitting solvers work.

The member ("lane") axis comes last, so that one instruction works on many members and a step needs no transpose:
measured 2-9 times faster on a CPU than the batch-first layout of `jax.vmap` at small n. One network is the case of one
lane. Arrays with a last axis of length 1 are shared by all lanes.
"""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _choices
from .._checks import is_concrete
from .._cpu import loops_are_kernels
from .._elementary import sum_rows
from .._errors import JaxoscError
from ..activations import AbstractActivation
from ..fields import AbstractField, RateRNN, solve_energy_shift
from .facts import Facts

PER_LANE = ("matrix", "gain", "bias", "leak", "energy_weights", "energy_shift")
"""The parts of `Lanes` whose last axis counts lanes; whatever activation and drive hold is the same for all."""


class Lanes(eqx.Module):
    """The networks of all lanes as plain arrays: x' = gain W sigma(x) + bias + u(t) - leak x, or the rate form.

    **Attributes:**

    - `matrix`: (n, n, lanes), or (n, n, 1) when all lanes share W.
    - `activation`: sigma.
    - `gain`: (lanes,) factor on W, or None for 1. Apart from W, so that lanes of different gain can share W.
    - `bias`, `energy_weights` (d), `energy_shift` (c with S c = bias): (n, lanes) or (n, 1), or None.
    - `leak`: (lanes,) or (1,), or None for none.
    - `drive`: u, a function of the time that returns (n,), the same in all lanes, or None.
    - `by_lane`: W once more with the lanes first, where products want it so; see `prepared`.
    - `form`: "current" or "rate".
    - `hollow`: W has a zero diagonal by construction, which lets a splitting step skip the self-coupling.
    - `skew`: W = S diag(d) with skew S (d = 1 without `energy_weights`), by construction or seen.
    - `colours`: groups of neurons that never meet, by construction of W, or None.
    """

    matrix: Float[Array, "n n #lanes"]
    activation: AbstractActivation
    gain: Float[Array, " #lanes"] | None = None
    bias: Float[Array, "n #lanes"] | None = None
    leak: Float[Array, " #lanes"] | None = None
    energy_weights: Float[Array, "n #lanes"] | None = None
    energy_shift: Float[Array, "n #lanes"] | None = None
    drive: Callable[[Any], Float[Array, " n"]] | None = None
    by_lane: Float[Array, "lanes n n"] | None = None
    form: Literal["current", "rate"] = eqx.field(static=True, default="current")
    hollow: bool = eqx.field(static=True, default=False)
    skew: bool = eqx.field(static=True, default=False)
    colours: tuple[tuple[int, ...], ...] | None = eqx.field(static=True, default=None)

    @property
    def size(self) -> int:
        """The number of neurons n."""
        return self.matrix.shape[0]

    def prepared(self, use: _choices.Use = "stages") -> "Lanes":
        """The same networks ready for many steps: a large W of its own is laid out for matrix products.

        Within a loop the compiler would lay it out anew in every step (n = 32: 20 ns a neuron instead of 4). `use`,
        what a step does with W, decides from which size on it is large.
        """
        up_to = _choices.own_columns_up_to(use, self.matrix.dtype.itemsize, loops_are_kernels())
        if self.matrix.shape[-1] == 1 or self.size <= up_to:
            return self
        by_lane = jnp.moveaxis(self.matrix, -1, 0)
        return eqx.tree_at(lambda lanes: lanes.by_lane, self, by_lane, is_leaf=lambda leaf: leaf is None)

    def preactivation(self, x: Float[Array, "n lanes"]) -> Float[Array, "n lanes"]:
        """The y whose energy is H: x itself in the current form, gain W x + bias in the rate form."""
        if self.form == "current":
            return x
        y = self.times_matrix(x)
        return y if self.bias is None else y + self.bias

    def input_at(self, t: Any) -> Float[Array, "n #lanes"] | None:
        """bias + u(t), None when there is neither."""
        if self.drive is None:
            return self.bias
        inflow = self.drive(t)[:, None]
        return inflow if self.bias is None else self.bias + inflow

    def velocity(self, t: Any, x: Float[Array, "n lanes"]) -> Float[Array, "n lanes"]:
        """dx/dt of every lane at time t."""
        inflow = self.input_at(t)
        rate = self.times_matrix(x if self.form == "rate" else self.activation(x))
        rate = rate if inflow is None else rate + inflow
        rate = self.activation(rate) if self.form == "rate" else rate
        return rate if self.leak is None else rate - self.leak[None, :] * x

    def energy(self, x: Float[Array, "n lanes"]) -> Float[Array, " lanes"]:
        """H of every lane, as `field.energy`, with W's own scale times gain (gain does not enter H without a bias)."""
        y = self.preactivation(x)
        if self.energy_weights is None:
            energy = self.activation.potential_sum(y)
        else:
            energy = sum_rows(self.activation.potential(y) * self.energy_weights)
        if self.energy_shift is None:
            return energy
        shift = self.energy_shift if self.gain is None else self.energy_shift / self.gain[None, :]
        return energy + sum_rows(shift * y)

    def times_matrix(self, x: Float[Array, "n lanes"]) -> Float[Array, "n lanes"]:
        """gain W x of every lane."""
        if self.by_lane is None:
            product = lane_product(self.matrix, x, max(_choices.ONE_PRODUCT_COLUMNS_UP_TO.values()))
        else:
            product = jnp.einsum("lij,lj->li", self.by_lane, x.T, precision="highest").T
        return product if self.gain is None else self.gain[None, :] * product


def own_axes(lanes: Lanes) -> Lanes:
    """For maps over lanes: -1 at each array that differs from lane to lane, None at what all of them share."""
    shared = jax.tree.map(lambda _: None, lanes)

    def parts(tree: Any) -> list[Any]:
        return [getattr(tree, name) for name in PER_LANE]

    axes = [None if array is None or array.shape[-1] == 1 else -1 for array in parts(lanes)]
    return eqx.tree_at(parts, shared, axes, is_leaf=lambda leaf: leaf is None)


def lane_product(
    matrix: Float[Array, "m n #lanes"], x: Float[Array, "n lanes"], own_up_to: int | None = None
) -> Float[Array, "m lanes"]:
    """W x in every lane, in full precision. The sum of columns has a fixed order, the products leave it to XLA.

    `own_up_to`: how many columns of an own W are summed one by one, None for the usual choice.
    """
    columns, shared = matrix.shape[1], matrix.shape[2] == 1
    own_up_to = _choices.OWN_COLUMNS_UP_TO if own_up_to is None else own_up_to
    if columns <= (_choices.UNROLLED_UP_TO if shared else own_up_to):
        total = matrix[:, 0] * x[0:1]
        for j in range(1, columns):
            total = total + matrix[:, j] * x[j : j + 1]
        return total
    if shared:
        return jnp.matmul(matrix[:, :, 0], x, precision="highest")
    return jnp.sum(matrix * x[None], axis=1)


def computed_once(
    dt: Float[Array, ""], compute: Callable[[], Float[Array, "n lanes"]], like: Float[Array, "n lanes"]
) -> Float[Array, "n lanes"]:
    """`compute()`, kept in memory by XLA and not merged into each of its uses.

    A branch is a border that fusion does not cross (an optimization barrier is ignored on CPU); that dt is not zero is
    true in every run and nothing that the compiler can know.
    """
    return jax.lax.cond(dt != 0, compute, lambda: jnp.zeros_like(like))


def lanes_of(field: AbstractField, facts: Facts | None = None) -> Lanes:
    """The lanes of one network (one lane, shared by whatever it meets) or of a batch with one leading axis.

    What the batch shares (say, one weight under many leaks) stays one copy. A leak known to be zero is left out, so
    that it costs nothing. Within a trace values do not show: there `facts`, from outside, say what they have shown.
    """
    if len(field.batch_shape) > 1:
        raise JaxoscError(f"Got a field with batch axes {field.batch_shape}, expected at most one: flatten them first.")
    weight, bias, leak = field.weight, field.bias, field.leak
    if weight.batch_shape:
        matrix, scales = jax.vmap(lambda w: (w.matrix(), w.energy_weights()), out_axes=-1)(weight)
    else:
        matrix, scales = jax.tree.map(lambda array: array[..., None], (weight.matrix(), weight.energy_weights()))
    if bias is not None:
        bias = bias[:, None] if bias.ndim == 1 else bias.T
    if facts is None:
        has_leak = not (is_concrete(leak) and not np.any(np.asarray(leak)))
        hollow = type(weight).hollow or _known_hollow(matrix)
        skew = type(weight).skew or scales is not None or _known_skew(matrix)
    else:
        has_leak, hollow, skew = facts
    rate_form = isinstance(field, RateRNN)
    return Lanes(
        matrix=matrix,
        activation=field.activation,
        bias=bias,
        leak=jnp.atleast_1d(leak) if has_leak else None,
        energy_weights=scales,
        energy_shift=None if bias is None or rate_form else _shift_lanes(matrix, scales, bias),
        drive=field.drive,
        form="rate" if rate_form else "current",
        hollow=hollow,
        skew=skew,
        colours=weight.colours,
    )


def _known_hollow(matrix: Array) -> bool:
    """Whether the values can be looked at and every diagonal entry is zero."""
    return is_concrete(matrix) and not np.any(np.diagonal(np.asarray(matrix)))


def _known_skew(matrix: Array) -> bool:
    """Whether the values can be looked at and W.T == -W in every lane."""
    return is_concrete(matrix) and np.array_equal(np.asarray(matrix), -np.swapaxes(np.asarray(matrix), 0, 1))


def _shift_lanes(matrix: Array, scales: Array | None, bias: Array) -> Float[Array, "n #lanes"]:
    width = max(matrix.shape[-1], bias.shape[-1])
    parts = jax.tree.map(lambda array: jnp.broadcast_to(array, (*array.shape[:-1], width)), (matrix, scales, bias))
    return jax.vmap(solve_energy_shift, in_axes=-1, out_axes=-1)(*parts)
