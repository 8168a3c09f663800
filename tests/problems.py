"""The table of problems with closed forms that every solver is tested on.

A row is a field, a start, the exact state at any time, and what is conserved. `test_problems.py` holds the table itself
against the fields, so a wrong row cannot make a wrong solver look right.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import expm

import jaxosc as jo
from jaxosc.fields import AbstractField
from jaxosc.solvers import Lanes
from jaxosc.weights import DenseSkew, RotationBlocks, Symmetrizable

Exact = Callable[[np.ndarray], np.ndarray]

_pair_solution = jax.jit(jo.oracles.pair_solution)


@dataclass(frozen=True)
class Problem:
    """One row.

    `exact` maps times (...) to states (..., n) of the field started at `y0` (n,). `period` is None where the orbit does
    not close. `conservative`: whether `field.energy` and the linear invariants, `casimirs` of them, are conserved.
    """

    name: str
    make_field: Callable[[], AbstractField]
    y0: tuple[float, ...]
    exact: Exact
    period: float | None = None
    conservative: bool = True
    casimirs: int = 0

    def __str__(self) -> str:
        return self.name


def rotation(omega: float) -> np.ndarray:
    """W of the pair."""
    return np.array([[0.0, omega], [-omega, 0.0]])


def skew(n: int, seed: int) -> np.ndarray:
    """A random skew matrix of spectral norm 1."""
    a = np.random.default_rng(seed).standard_normal((n, n))
    return (a - a.T) / np.linalg.norm(a - a.T, 2)


def affine(matrix: np.ndarray, constant: np.ndarray, y0: np.ndarray) -> Exact:
    """The solution of y' = matrix y + constant, by the exponential of the matrix with one more row and column."""
    n = len(y0)
    augmented = np.zeros((n + 1, n + 1))
    augmented[:n, :n], augmented[:n, n] = matrix, constant
    start = np.append(y0, 1.0)

    def exact(t: np.ndarray) -> np.ndarray:
        return (expm(augmented * np.asarray(t, float)[..., None, None]) @ start)[..., :n]

    return exact


def pair(y0: np.ndarray, omega: float) -> Exact:
    """The tanh pair, by the closed form of the package (checked against other sources in test_oracles.py)."""
    return lambda t: np.asarray(_pair_solution(np.asarray(t, float), jnp.asarray(y0), omega))


def pair_period(y0: tuple[float, float], omega: float) -> float:
    """The period of the tanh pair through `y0`."""
    return float(jo.oracles.pair_period(np.sum(np.log(np.cosh(y0))), omega))


def linear_pair() -> Problem:
    """y' = W y, n = 2: circles."""
    omega, y0 = 1.3, (0.8, -0.3)
    return Problem(
        "linear_pair",
        lambda: jo.CurrentRNN(DenseSkew.from_matrix(rotation(omega)), jo.Identity()),
        y0,
        affine(rotation(omega), np.zeros(2), np.array(y0)),
        period=2 * np.pi / omega,
    )


def linear_three() -> Problem:
    """y' = W y, n = 3: circles about the kernel of W, the one Casimir."""
    weight, y0 = skew(3, seed=1), (0.5, -1.0, 0.7)
    return Problem(
        "linear_three",
        lambda: jo.CurrentRNN(DenseSkew.from_matrix(weight), jo.Identity()),
        y0,
        affine(weight, np.zeros(3), np.array(y0)),
        period=2 * np.pi,
        casimirs=1,
    )


def linear_eight() -> Problem:
    """y' = W y, n = 8: four frequencies, a torus."""
    weight = skew(8, seed=2)
    y0 = tuple(np.random.default_rng(3).standard_normal(8))
    return Problem(
        "linear_eight",
        lambda: jo.CurrentRNN(DenseSkew.from_matrix(weight), jo.Identity()),
        y0,
        affine(weight, np.zeros(8), np.array(y0)),
    )


def linear_bias() -> Problem:
    """y' = W y + b, n = 2: circles about -W^-1 b; the energy has the linear term of the bias."""
    omega, bias, y0 = -0.9, (0.4, 1.1), (0.2, 0.6)
    return Problem(
        "linear_bias",
        lambda: jo.CurrentRNN(DenseSkew.from_matrix(rotation(omega)), jo.Identity(), bias=np.array(bias)),
        y0,
        affine(rotation(omega), np.array(bias), np.array(y0)),
        period=2 * np.pi / abs(omega),
    )


def linear_leak() -> Problem:
    """y' = W y + b - leak y, n = 3: spirals into a point; nothing is conserved."""
    weight, bias, leak, y0 = skew(3, seed=4), np.array([0.3, -0.2, 0.5]), 0.15, (1.0, 0.4, -0.8)
    return Problem(
        "linear_leak",
        lambda: jo.CurrentRNN(DenseSkew.from_matrix(weight), jo.Identity(), bias=bias, leak=leak),
        y0,
        affine(weight - leak * np.eye(3), bias, np.array(y0)),
        conservative=False,
    )


def linear_symmetrizable() -> Problem:
    """y' = S diag(d) y, n = 4: not skew, yet conservative."""
    part, d = skew(4, seed=5), np.array([0.5, 1.0, 2.0, 1.5])
    y0 = (0.7, -0.2, 0.4, 1.0)
    return Problem(
        "linear_symmetrizable",
        lambda: jo.CurrentRNN(Symmetrizable.from_energy_weights(DenseSkew.from_matrix(part), d), jo.Identity()),
        y0,
        affine(part * d, np.zeros(4), np.array(y0)),
    )


def linear_unconstrained() -> Problem:
    """y' = W y with a full diagonal, n = 2: an outward spiral."""
    weight, y0 = np.array([[-0.1, 1.2], [-0.9, 0.25]]), (0.6, 0.5)
    return Problem(
        "linear_unconstrained",
        lambda: jo.CurrentRNN(weight, jo.Identity()),
        y0,
        affine(weight, np.zeros(2), np.array(y0)),
        conservative=False,
    )


def linear_rate_leak() -> Problem:
    """r' = W r + b - leak r, the rate form with everything, n = 3."""
    weight, bias, leak, y0 = skew(3, seed=6), np.array([0.3, 0.1, -0.4]), 0.1, (0.9, -0.6, 0.2)
    return Problem(
        "linear_rate_leak",
        lambda: jo.RateRNN(DenseSkew.from_matrix(weight), jo.Identity(), bias=bias, leak=leak),
        y0,
        affine(weight - leak * np.eye(3), bias, np.array(y0)),
        conservative=False,
    )


def tanh_pair(name: str, y0: tuple[float, float], omega: float) -> Problem:
    """The pair of two tanh neurons."""
    return Problem(
        name,
        lambda: jo.CurrentRNN(DenseSkew.from_matrix(rotation(omega))),
        y0,
        pair(np.array(y0), omega),
        period=pair_period(y0, omega),
    )


def tanh_pair_rate() -> Problem:
    """r' = tanh(W r + b): y = W r + b is the tanh pair, and W can be inverted."""
    omega, bias, y0 = 1.1, np.array([0.2, -0.5]), (1.2, 0.4)
    weight = rotation(omega)
    trajectory = pair(np.array(y0), omega)

    def exact(t: np.ndarray) -> np.ndarray:
        return np.linalg.solve(weight, (trajectory(t) - bias)[..., None])[..., 0]

    return Problem(
        "tanh_pair_rate",
        lambda: jo.RateRNN(DenseSkew.from_matrix(weight), bias=bias),
        tuple(np.linalg.solve(weight, np.array(y0) - bias)),
        exact,
        period=pair_period(y0, omega),
    )


def tanh_two_pairs() -> Problem:
    """Two tanh pairs that do not know of each other, n = 4: a torus."""
    omegas, y0 = (1.0, -0.7), (1.5, 0.2, -0.4, 2.5)
    first, second = pair(np.array(y0[:2]), omegas[0]), pair(np.array(y0[2:]), omegas[1])
    weight = np.zeros((4, 4))
    weight[:2, :2], weight[2:, 2:] = rotation(omegas[0]), rotation(omegas[1])
    return Problem(
        "tanh_two_pairs",
        lambda: jo.CurrentRNN(DenseSkew.from_matrix(weight)),
        y0,
        lambda t: np.concatenate([first(t), second(t)], axis=-1),
    )


def tanh_rotation_blocks() -> Problem:
    """A tanh pair beside a neuron without coupling, n = 3, as `RotationBlocks`: a closed orbit and a Casimir."""
    omega, y0 = 0.8, (0.9, -1.4, 0.3)
    weight = RotationBlocks(np.array([omega]), 3)
    corner = float(np.asarray(weight.matrix())[0, 1])
    trajectory = pair(np.array(y0[:2]), corner)
    return Problem(
        "tanh_rotation_blocks",
        lambda: jo.CurrentRNN(weight),
        y0,
        lambda t: np.concatenate([trajectory(t), np.full((*np.shape(t), 1), y0[2])], axis=-1),
        period=pair_period(y0[:2], omega),
        casimirs=1,
    )


PROBLEMS = (
    linear_pair(),
    linear_three(),
    linear_eight(),
    linear_bias(),
    linear_leak(),
    linear_symmetrizable(),
    linear_unconstrained(),
    linear_rate_leak(),
    tanh_pair("tanh_pair", (1.0, -0.5), 1.0),
    tanh_pair("tanh_pair_large", (9.0, -4.5), 1.4),
    tanh_pair_rate(),
    tanh_two_pairs(),
    tanh_rotation_blocks(),
)

BY_NAME = {problem.name: problem for problem in PROBLEMS}


def lanes_with(n: int, count: int, *, own: bool = False, dtype: str = "float64", **parts: Any) -> tuple[Lanes, Any]:
    """Skew networks and starts (n, count)."""
    generator = np.random.default_rng(n + count)
    matrix = generator.standard_normal((n, n, count if own else 1)) / np.sqrt(n)
    given = {name: jnp.asarray(part, dtype) for name, part in parts.items()}
    matrix = jnp.asarray(matrix - np.swapaxes(matrix, 0, 1), dtype)
    lanes = Lanes(matrix, jo.Tanh(), hollow=True, skew=True, **given)
    return lanes, jnp.asarray(generator.standard_normal((n, count)), dtype)
