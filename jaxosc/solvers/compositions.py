"""Coefficients that raise a first-order step chi and its adjoint chi* to higher order.

A step of size dt is chi(c_1 dt), chi*(c_2 dt), chi(c_3 dt), ... in this order, alternating. Each sequence but that of
order 1 is palindromic, so the whole is symmetric: started by chi and ended by chi*, it is its own adjoint.
"""

ORDER_ONE = (1.0,)

ORDER_TWO = (0.5, 0.5)


def _alternating(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, ...]:
    """Turn a splitting a_1, b_1, a_2, ..., b_s, a_{s+1} of two exact flows into coefficients of chi and chi*.

    chi = (flow A, then flow B) and chi* = (flow B, then flow A), so neighbours share flows:
    a_{i+1} = c_{2i} + c_{2i+1}, b_i = c_{2i-1} + c_{2i} (McLachlan, SIAM J. Sci. Comput. 16, 1995).
    """
    coefficients = [a[0]]
    for i in range(len(b)):
        coefficients.append(b[i] - coefficients[-1])
        if i + 1 < len(b):
            coefficients.append(a[i + 1] - coefficients[-1])
    # A palindrome up to rounding; the lattice mode needs it to the bit.
    half = coefficients[: len(b)]
    return (*half, *reversed(half))


def _blanes_moan_order_four() -> tuple[float, ...]:
    """S6 of Blanes and Moan, J. Comput. Appl. Math. 142 (2002): order 4 in six stages, small error constant."""
    a1, a2, a3 = 0.0792036964311957, 0.353172906049774, -0.0420650803577195
    b1, b2 = 0.209515106613362, -0.143851773179818
    a = (a1, a2, a3, 1 - 2 * (a1 + a2 + a3), a3, a2, a1)
    b3 = 0.5 - (b1 + b2)
    return _alternating(a, (b1, b2, b3, b3, b2, b1))


def _symmetric(*outer: float) -> tuple[float, ...]:
    """A symmetric composition of steps of order 2 whose sizes are `outer`, the rest of 1, and `outer` reversed."""
    sizes = (*outer, 1 - 2 * sum(outer), *reversed(outer))
    return tuple(half for size in sizes for half in (size / 2, size / 2))


ORDER_FOUR = _blanes_moan_order_four()

ORDER_SIX = _symmetric(0.39216144400731413928, 0.33259913678935943860, -0.70624617255763935981, 0.08221359629355080023)
"""Kahan and Li, Math. Comput. 66 (1997), 1089: nine steps of order 2."""

ORDER_EIGHT = _symmetric(
    0.13020248308889008088,
    0.56116298177510838456,
    -0.38947496264484728641,
    0.15884190655515560090,
    -0.39590389413323757734,
    0.18453964097831570709,
    0.25837438768632204729,
    0.29501172360931029887,
)
"""Kahan and Li, Math. Comput. 66 (1997), 1089: seventeen steps of order 2."""

COMPOSITIONS = {1: ORDER_ONE, 2: ORDER_TWO, 4: ORDER_FOUR, 6: ORDER_SIX, 8: ORDER_EIGHT}
"""Order of accuracy -> coefficients."""

SWEEPS_PER_STEP = {order: len(coefficients) for order, coefficients in COMPOSITIONS.items()}
"""Order of accuracy -> sweeps, each as dear as one step of forward Euler."""
