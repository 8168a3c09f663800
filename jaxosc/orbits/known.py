"""What is known beforehand of the deviations from an orbit: directions that do not grow, and gradients that stay.

Right vectors are carried along the orbit as they are: the velocity, if nothing drives the network; in the rate form
also every shift within ker W, if nothing leaks. Left vectors are gradients of invariants: of the energy of a network
with (hidden) skewness without leak and drive, and the Casimirs of the current form. The two are orthogonal.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import is_concrete
from .._errors import JaxoscError
from ..fields import AbstractField, RateRNN
from ..simulate.members import Members
from ..solvers import Lanes, lanes_of
from ..solvers.facts import facts_of


class Known(NamedTuple):
    """Of which kind the known vectors are: `flow`, `energy`, and `kernel` many of ker W (shifts or Casimirs)."""

    flow: bool
    energy: bool
    kernel: int
    rate_form: bool

    @property
    def shifts(self) -> int:
        """Right vectors from ker W."""
        return self.kernel if self.rate_form else 0

    @property
    def casimirs(self) -> int:
        """Left vectors from ker W^T."""
        return 0 if self.rate_form else self.kernel

    @property
    def right(self) -> int:
        """How many right vectors."""
        return int(self.flow) + self.shifts

    @property
    def left(self) -> int:
        """How many left vectors."""
        return int(self.energy) + self.casimirs

    @property
    def kinds(self) -> tuple[str, ...]:
        """One word for each, right ones first."""
        right = ("flow",) * self.flow + ("shift",) * self.shifts
        return right + ("energy",) * self.energy + ("casimir",) * self.casimirs


def known_of(field: AbstractField) -> Known:
    """What is known of all networks of a field.

    Within a transformation, where values do not show, W counts as of full rank but for one Casimir where skewness by
    construction meets an odd n; a bias or leak that does not show leaves nothing but the flow.

    **Raises:** `JaxoscError` where the networks of a batch differ.
    """
    rate_form = isinstance(field, RateRNN)
    if field.drive is not None:
        return Known(False, False, 0, rate_form)
    if not is_concrete(field):
        facts = facts_of(field)
        if facts.leaks or field.bias is not None:
            return Known(True, False, 0, rate_form)
        return Known(True, facts.skew, field.size % 2 if facts.skew else 0, rate_form)
    if np.any(np.asarray(field.leak)):
        return Known(True, False, 0, rate_form)
    # Within a trace too: the values are there to be seen.
    with jax.ensure_compile_time_eval():
        members, _ = Members(field, jnp.zeros(field.size, field.dtype), field.batch_shape, 0).whole()
        lanes, energy = lanes_of(members), facts_of(field).skew
    parts = lanes.matrix, lanes.energy_weights, lanes.bias
    matrices, scales, biases = (None if part is None else np.moveaxis(np.asarray(part), -1, 0) for part in parts)
    count = max(len(part) for part in (matrices, scales, biases) if part is not None)
    networks: list[Any] = [
        [None if part is None else part[k % len(part)] for part in (matrices, scales, biases)] for k in range(count)
    ]
    kernels = {_kernel_size(matrix, None if rate_form else bias) for matrix, _, bias in networks}
    if energy and not rate_form and biases is not None:
        solved = [_has_shift(*network) for network in networks]
        energy = all(solved)
        if any(solved) != energy:
            raise JaxoscError(
                "Got networks of which some conserve an energy and some do not, expected one kind a call."
            )
    if len(kernels) > 1:
        raise JaxoscError(
            f"Got networks with {sorted(kernels)} directions in ker W, expected as many in each: call once a kind."
        )
    return Known(True, energy, kernels.pop(), rate_form)


def known_vectors(
    lanes: Lanes, field: AbstractField, y: Float[Array, " n"], known: Known
) -> tuple[Float[Array, "n right"], Float[Array, "n left"]]:
    """The right and left vectors at the state `y` of one network, as columns."""
    n, x = len(y), y[:, None]
    kernel = _kernel(lanes.matrix[:, :, 0], None if lanes.bias is None else lanes.bias[:, 0], known)
    right, left = [jnp.zeros((n, 0), y.dtype)], [jnp.zeros((n, 0), y.dtype)]
    if known.flow:
        right.append(lanes.velocity(jnp.zeros((), y.dtype), x))
    if known.energy:
        left.append(jax.grad(field.energy)(y)[:, None])
    (right if known.rate_form else left).append(kernel)
    return jnp.concatenate(right, axis=1), jnp.concatenate(left, axis=1)


def casimir_rows(field: AbstractField, known: Known) -> Float[Array, "k n"]:
    """Casimir vectors of one network as rows, as many as in `known`; differentiable in W and the bias.

    A basis of a kernel has no derivative of its own (singular values of skew W are equal in pairs), the projector onto
    it has: a basis that is held still is projected.
    """
    if not known.casimirs:
        return jnp.zeros((0, field.size), field.dtype)
    wide = _beside(field.weight.matrix(), field.bias)
    rows = jax.lax.stop_gradient(_kernel(field.weight.matrix(), field.bias, known)).T
    inner = jnp.matmul(jnp.matmul(rows, wide, precision="highest"), jnp.linalg.pinv(wide), precision="highest")
    return rows - inner


def _kernel(matrix: Array, bias: Array | None, known: Known) -> Float[Array, "n k"]:
    """ker W in the rate form; in the current form what is orthogonal to all columns of W and to the bias."""
    if known.rate_form:
        # Left singular vectors of W^T, since those of a complete QR would not show the rank.
        vectors, _, _ = jnp.linalg.svd(matrix.T)
    else:
        vectors, _, _ = jnp.linalg.svd(_beside(matrix, bias))
    return vectors[:, vectors.shape[1] - known.kernel :]


def _beside(matrix: Array, bias: Array | None) -> Array:
    return matrix if bias is None else jnp.concatenate([matrix, bias[:, None]], axis=1)


def _kernel_size(matrix: np.ndarray, bias: np.ndarray | None) -> int:
    """At n eps times the largest singular value, as `casimir_vectors` has it."""
    wide = matrix if bias is None else np.concatenate([matrix, bias[:, None]], axis=1)
    singular = np.linalg.svd(wide.astype(np.float64), compute_uv=False)
    eps = np.finfo(matrix.dtype).eps
    limit = 10 * len(matrix) * eps * max(np.linalg.norm(matrix.astype(np.float64), 2), np.finfo(matrix.dtype).tiny)
    return int((singular <= limit).sum())


def _has_shift(matrix: np.ndarray, scales: np.ndarray | None, bias: np.ndarray) -> bool:
    """Whether S c = b has a solution, so that H + c.y is conserved."""
    skew = matrix if scales is None else matrix / scales[None, :]
    left = np.asarray(skew, np.float64)
    shift = np.linalg.lstsq(left, np.asarray(bias, np.float64), rcond=10 * len(left) * np.finfo(matrix.dtype).eps)[0]
    return bool(
        np.linalg.norm(left @ shift - bias) <= 1e3 * np.finfo(matrix.dtype).eps * max(np.linalg.norm(bias), 1e-300)
    )
