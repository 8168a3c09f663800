"""How well a share is known that was counted in a sample."""

from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Float

from ._errors import JaxoscError


def wilson_interval(
    successes: Any, trials: Any, confidence: float = 0.95
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """The interval of shares that k successes in m independent trials are compatible with, by Wilson's formula.

    With z the normal quantile at (1 + confidence) / 2 its ends are

        (k + z^2 / 2 +- z sqrt(k (m - k) / m + z^2 / 4)) / (m + z^2),

    which lie within 0 and 1, on 0 where k = 0 and on 1 where k = m. How often the interval of a sample holds the true
    share depends on that share a little: with confidence 0.95 and m of 16 or more it is 0.95 in the mean over shares,
    0.91 to 0.99 for each of them between 0.05 and 0.95, and 0.83 at worst for shares next to 0 and 1. No trial leaves
    everything open: 0 to 1.

    **Arguments:** `successes`, `trials`: counts k <= m of any shapes that go together; `confidence`: above 0, below 1.

    **Returns:** lower and upper ends, arrays of the common shape, in float64.

    **Raises:** `JaxoscError` for counts below 0, more successes than trials, NaN, and another confidence.

    Source: E. B. Wilson, *J. Am. Stat. Assoc.* 22 (1927) 209-212; how well it covers: Brown, Cai and DasGupta,
    *Statist. Sci.* 16 (2001) 101-133.
    """
    k, m = np.broadcast_arrays(np.asarray(successes, float), np.asarray(trials, float))
    if not np.all((k >= 0) & (k <= m) & np.isfinite(m)):
        raise JaxoscError(
            f"Got successes = {successes} of trials = {trials}, expected 0 <= successes <= trials: count both again."
        )
    if not 0 < confidence < 1:
        raise JaxoscError(f"Got confidence = {confidence}, expected a number between 0 and 1: take 0.95.")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = k + z**2 / 2
    half = z * np.sqrt(k * (m - k) / np.maximum(m, 1) + z**2 / 4)
    # Rounding may leave 1e-17 where the formula says 0 or 1.
    low, high = np.where(k == 0, 0, (middle - half) / (m + z**2)), np.where(k == m, 1, (middle + half) / (m + z**2))
    return low, high
