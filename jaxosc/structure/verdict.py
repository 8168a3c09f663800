"""The verdict on W: its kind, the numbers that certify it, and the function that finds both."""

import dataclasses
import textwrap
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._checks import is_concrete, require_finite
from .._errors import JaxoscError
from ..activations import AbstractActivation, Tanh
from ..weights import AbstractWeight
from . import sentences
from .centre import spectrum
from .hidden_skewness import best_scaling, skew_defect
from .reversal import time_reversal

KINDS = ("skew", "symmetrizable", "linear_centre", "none")

_WIDTH = 116
_WIDEST = 0.1
"""The tolerance of short floats ends here; 10 n eps of bfloat16 would let everything pass."""


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Structure:
    """What W is, with its certificate, and what follows for y' = W sigma(y); print it.

    For a batch of matrices (..., n, n) every attribute has the batch axes in front, and `verdict[k]` is the verdict on
    one of them; for a single matrix they are plain numbers, a word, and arrays without batch axes.

    **Attributes:**

    - `kind`: "skew" (W.T = -W), "symmetrizable" (W = S diag(d) with S skew and d > 0), "linear_centre" (neither, but
      every eigenvalue is imaginary and semisimple) or "none". The first that holds.
    - `d` (n,): the energy weights of H(y) = sum_i d_i Phi(y_i); 1 for skew W, with geometric mean 1 on each connected
      component for symmetrizable W (each component may be given a factor of its own), NaN for the rest.
    - `skew_residual`: max |W + W.T| / max |W|.
    - `symmetrizable_residual`: the same of A = D^(1/2) W D^(-1/2) with the only d that can serve.
    - `real_part`, `semisimplicity`: by how much of its Frobenius norm W, balanced, has to change to have imaginary
      eigenvalues, and as many eigenvectors where eigenvalues meet. 0 where hidden skewness implies it.
    - `eigenvalues` (n,): of W, in 1/time, sorted by imaginary part; exactly imaginary for skew and symmetrizable W.
    - `casimirs`: the number of independent c with c.W = 0: c.y is conserved, whatever the kind and sigma are.
    - `symmetric_part`: "zero", "negative definite", "negative semidefinite", "positive ...", or "indefinite": of W, or
      of A if that is definite and W's is not.
    - `tolerance`: what the four residuals may be.
    - `matrix` (n, n), `scaled` (n, n): W and A in float64; `dtype`, in which W came; `activation`.
    """

    kind: Any
    d: np.ndarray
    skew_residual: Any
    symmetrizable_residual: Any
    real_part: Any
    semisimplicity: Any
    eigenvalues: np.ndarray
    casimirs: Any
    symmetric_part: Any
    tolerance: float
    matrix: np.ndarray
    scaled: np.ndarray
    dtype: str
    activation: AbstractActivation

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes; () for a single matrix."""
        return self.matrix.shape[:-2]

    @property
    def size(self) -> int:
        """The number of neurons n."""
        return int(self.matrix.shape[-1])

    @property
    def residual(self) -> Any:
        """The residual of the kind that was found; of "none", that of hidden skewness."""
        centre = np.maximum(self.real_part, self.semisimplicity)
        residual = np.where(self.kind == "skew", self.skew_residual, self.symmetrizable_residual)
        residual = np.where(self.kind == "linear_centre", centre, residual)
        return residual if self.batch_shape else float(residual)

    @property
    def conservative(self) -> Any:
        """Whether the nonlinear network conserves an energy for every sigma: kind skew or symmetrizable."""
        return np.isin(self.kind, ("skew", "symmetrizable")) if self.batch_shape else self.kind in KINDS[:2]

    @property
    def reason(self) -> Any:
        """The sentence that explains the kind; an array of sentences for a batch."""
        if not self.batch_shape:
            return sentences.reason(self)
        told = [sentences.reason(self[k]) for k in np.ndindex(self.batch_shape)]
        return np.array(told, object).reshape(self.batch_shape)

    @property
    def reversal(self) -> np.ndarray | None:
        """A signed permutation R (n, n) with R W R = -W that commutes with sigma, None where none was found.

        **Raises:** `JaxoscError` for a batch, as `consequences`.
        """
        self._require_single("reversal")
        return time_reversal(self.matrix, self.tolerance, signs=self.activation.odd is True)

    @property
    def consequences(self) -> list[str]:
        """What is true of the nonlinear network, sentence by sentence: energy, bounds, Casimirs, time reversal.

        For an activation that is not known to be odd and increasing, `jo.check_activation` measures it first, which
        takes about a second.

        **Raises:** `JaxoscError` for a batch: take `verdict[k].consequences`.
        """
        self._require_single("consequences")
        return sentences.consequences(self)

    def __getitem__(self, index: Any) -> "Structure":
        """The verdict on one matrix or on a part of a batch; `index` goes over the batch axes."""
        if not self.batch_shape:
            raise JaxoscError("Got an index into the verdict on a single matrix, expected none: drop it.")
        places = np.arange(int(np.prod(self.batch_shape))).reshape(self.batch_shape)[index]
        depth = len(self.batch_shape)
        picked = {name: getattr(self, name) for name in _PER_MATRIX}
        flat = {name: value.reshape((-1, *value.shape[depth:]))[places] for name, value in picked.items()}
        return dataclasses.replace(self, **(flat if np.ndim(places) else _plain(flat)))

    def __str__(self) -> str:
        if self.batch_shape:
            counts = ", ".join(f"{np.sum(self.kind == kind):,} {kind}" for kind in KINDS)
            return f"Structure of {self.kind.size:,} matrices {self.size} x {self.size} ({self.dtype}): {counts}"
        head = f"Structure of W, {self.size} x {self.size} ({self.dtype}): {self.kind}"
        lines = [self.reason, *self.consequences]
        return "\n".join([head, *(line for text in lines for line in _wrapped(text))])

    def __repr__(self) -> str:
        if self.batch_shape:
            return str(self)
        return f"Structure({self.kind!r}, n={self.size}, residual={self.residual:.2g}, {self.dtype})"

    def _require_single(self, name: str) -> None:
        if self.batch_shape:
            raise JaxoscError(
                f"Got {name} of the verdict on a batch {self.batch_shape}, expected that on one matrix: take"
                f" verdict[k].{name}."
            )


_PER_MATRIX = (
    *("kind", "d", "skew_residual", "symmetrizable_residual", "real_part", "semisimplicity", "eigenvalues"),
    *("casimirs", "symmetric_part", "matrix", "scaled"),
)


def structure(W: Any, activation: Any = None, *, tolerance: Any = None) -> Structure:
    """Decide whether W is skew, symmetrizable, a linear centre or none of these, and say what follows.

    - skew: W.T = -W. H(y) = sum_i Phi(y_i) is conserved by y' = W sigma(y), for every sigma.
    - symmetrizable: W = S diag(d), S skew, d > 0 (diag(a) S diag(d) is the same): H = sum_i d_i Phi(y_i) is.
    - linear_centre: all eigenvalues imaginary and semisimple, W not 0: no orbit of y' = W y grows or decays. Says
      nothing certain of the nonlinear network.

    A zero matrix is skew. Runs in float64 with NumPy, outside of JAX: 10^4 matrices of n = 8 take about two seconds on
    a core. Of 3,000 random matrices of each kind (n = 2..16: skew, S D, D1 S D2, sparse S D, T S T^-1, Gaussian and
    defective ones; d over four decades, condition of T up to 100) all were judged right, in float64 and rounded to
    float32; with conditions up to 1000 all in float64 and 99.6 % in float32.

    **Arguments:**

    - `W`: (n, n), or a batch (..., n, n), or an `AbstractWeight`, single or batched. Any real dtype.
    - `activation`: the sigma of the nonlinear network that `consequences` speaks of; default `jo.Tanh()`.
    - `tolerance`: what relative residuals may be; default 10 n eps of the dtype in which W came (float64 for integers).
      Give a larger one for numbers that were printed with few digits.

    **Returns:** a `Structure`; print it.

    **Raises:** `JaxoscError` for W that is not square, not real, empty or not finite, for traced W, for something that
    is no activation, and for a tolerance that is not a number in (0, 1).

    Source: Maybee, *Combinatorially symmetric matrices* (1974), for the symmetrizer along a forest; see the modules of
    `jaxosc.structure` for the rest.
    """
    matrix, dtype = _checked_matrix(W)
    activation = Tanh() if activation is None else activation
    if not isinstance(activation, AbstractActivation):
        raise JaxoscError(
            f"Got the activation {activation!r}, expected an instance such as jo.Tanh(): wrap a function of your own"
            " in jo.Elementwise(fn)."
        )
    allowed = _checked_tolerance(tolerance, matrix.shape[-1], dtype)
    batch = matrix.shape[:-2]
    found = _decide(matrix.reshape(-1, *matrix.shape[-2:]), allowed)
    shaped = {name: value.reshape((*batch, *value.shape[1:])) for name, value in found.items()}
    if not batch:
        shaped = _plain(shaped)
    return Structure(**shaped, tolerance=allowed, dtype=dtype.name, activation=activation)


def _decide(matrices: np.ndarray, tolerance: float) -> dict[str, np.ndarray]:
    """All that is told of each of the matrices (b, n, n)."""
    largest = np.abs(matrices).max(axis=(1, 2), initial=0.0)
    exponents = np.where(largest > 0, np.floor(np.log2(np.where(largest > 0, largest, 1.0))), 0.0).astype(int)
    units = np.ldexp(matrices, -exponents[:, None, None])  # exact, and no product overflows
    skewness = skew_defect(units)
    d, scaled = best_scaling(units)
    hidden = skew_defect(scaled)
    skew, symmetrizable = skewness <= tolerance, hidden <= tolerance
    conservative = skew | symmetrizable
    d = np.where(skew[:, None], 1.0, np.where(symmetrizable[:, None], d, np.nan))
    scaled = np.where(skew[:, None, None], units, scaled)
    eigenvalues, real_part, semisimplicity = _spectra(units, scaled, conservative, tolerance)
    centre = (real_part <= tolerance) & (semisimplicity <= tolerance)
    kinds = np.select([skew, symmetrizable, centre], KINDS[:3], KINDS[3])
    singular = np.linalg.svd(units, compute_uv=False)
    floor = tolerance * singular[:, :1]
    return {
        "kind": kinds,
        "d": d,
        "skew_residual": skewness,
        "symmetrizable_residual": hidden,
        "real_part": real_part,
        "semisimplicity": semisimplicity,
        "eigenvalues": _times_power(eigenvalues, exponents[:, None]),
        "casimirs": (singular <= floor).sum(axis=1),
        "symmetric_part": _definiteness(units, scaled, conservative, tolerance),
        "matrix": matrices,
        "scaled": np.ldexp(scaled, exponents[:, None, None]),
    }


def _spectra(units: np.ndarray, scaled: np.ndarray, conservative: np.ndarray, tolerance: float) -> tuple:
    """Eigenvalues with their two residuals: of skew matrices from the Hermitian i A, whose spectrum has no noise."""
    count, n, _ = units.shape
    eigenvalues = np.zeros((count, n), complex)
    real_part, semisimplicity = np.zeros(count), np.zeros(count)
    skew_parts = 0.5 * (scaled[conservative] - np.swapaxes(scaled[conservative], 1, 2))
    eigenvalues[conservative] = 1j * np.linalg.eigvalsh(-1j * skew_parts)
    if not conservative.all():
        rest = ~conservative
        eigenvalues[rest], real_part[rest], semisimplicity[rest] = spectrum(units[rest], tolerance)
    return eigenvalues, real_part, semisimplicity


def _definiteness(units: np.ndarray, scaled: np.ndarray, conservative: np.ndarray, tolerance: float) -> np.ndarray:
    """Words for the symmetric part of W, or of A where that one is definite and the first is not."""
    words = np.full(len(units), "indefinite", dtype="<U21")
    for matrices in (scaled, units):
        symmetric = 0.5 * (matrices + np.swapaxes(matrices, 1, 2))
        values = np.linalg.eigvalsh(symmetric)
        noise = tolerance * np.linalg.norm(matrices, axis=(1, 2))
        low, high = values[:, 0], values[:, -1]
        own = np.select(
            [high < -noise, low > noise, high <= noise, low >= -noise],
            ["negative definite", "positive definite", "negative semidefinite", "positive semidefinite"],
            "indefinite",
        )
        words = np.where(own == "indefinite", words, own)
    return np.where(conservative, "zero", words)


def _times_power(values: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    return np.ldexp(values.real, exponents) + 1j * np.ldexp(values.imag, exponents)


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Arrays of one entry and no axes as Python's own words and numbers."""
    return {name: value.item() if np.ndim(value) == 0 else value for name, value in fields.items()}


def _checked_matrix(W: Any) -> tuple[np.ndarray, np.dtype]:
    """W (..., n, n) in float64, and the dtype whose rounding it carries."""
    if not is_concrete(W):
        raise JaxoscError("Got a traced W, expected concrete numbers: call jo.structure outside of jit, vmap and grad.")
    try:
        array = np.asarray(W.matrix() if isinstance(W, AbstractWeight) else W)
    except ValueError as error:
        raise JaxoscError(f"Got W that is no array ({error}), expected (n, n): give rows of one length.") from None
    dtype = np.dtype(np.float64) if array.dtype == bool or jnp.issubdtype(array.dtype, jnp.integer) else array.dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        raise JaxoscError(f"Got W of dtype {array.dtype}, expected real numbers: drop the rest.")
    if array.ndim < 2 or array.shape[-1] != array.shape[-2] or array.shape[-1] == 0:
        raise JaxoscError(f"Got W of shape {array.shape}, expected (n, n) or (..., n, n): give square matrices.")
    array = array.astype(np.float64)
    require_finite("The matrix W", array)
    return array, dtype


def _checked_tolerance(tolerance: Any, n: int, dtype: np.dtype) -> float:
    if tolerance is None:
        return min(10 * n * float(jnp.finfo(dtype).eps), _WIDEST)
    try:
        value = float(tolerance)
    except (TypeError, ValueError):
        value = float("nan")
    if not 0 < value < 1:
        raise JaxoscError(f"Got tolerance = {tolerance!r}, expected a relative number in (0, 1), such as 1e-6.")
    return value


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")
