"""Checks of values that a person passes in; they look only at concrete arrays and stay silent inside a trace."""

from typing import Any

import equinox as eqx
import jax
import numpy as np

from ._errors import JaxoscError


def is_concrete(tree: Any) -> bool:
    """Whether no leaf of `tree` is a JAX tracer, so that its values can be looked at."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def require_finite(name: str, value: Any) -> None:
    """Raise one sentence that counts the NaN and infinite entries of the arrays in `value`, if there are any.

    **Raises:** `JaxoscError`. Traced values cannot be looked at and pass.
    """
    arrays = [leaf for leaf in jax.tree.leaves(value) if eqx.is_array_like(leaf)]
    if not is_concrete(arrays):
        return
    bad = sum(int(np.size(array) - np.isfinite(np.asarray(array)).sum()) for array in arrays)
    if bad:
        raise JaxoscError(f"{name} holds {bad} NaN or infinite value(s), expected finite numbers: clean it first.")


def require_positive(name: str, value: Any, unit: str = "") -> None:
    """Raise one sentence unless every entry of `value` is finite and > 0 (traced values pass).

    **Raises:** `JaxoscError`.
    """
    if not is_concrete(value):
        return
    array = np.asarray(value)
    if not (np.isfinite(array).all() and (array > 0).all()):
        shown = value if array.ndim == 0 else array[~(np.isfinite(array) & (array > 0))].ravel()[0]
        raise JaxoscError(f"{name} is {shown}{unit}, expected a finite number > 0: give a positive {name}.")
