"""Networks with limit cycles to test and teach with, and what is known of each: one of them is proven.

**Theorem** (the "proven" example). y' = W tanh(y) - leak y with W = [[a, w], [-w, a]], leak = l, a = 5/4, w = 2, l = 1
has exactly one closed orbit. It attracts every start but the origin, and its multiplier lies between 0 and 1.

*Proof.* Write s_i = tanh y_i, q_i = 1 - s_i^2, e_i = log cosh y_i, E = e_1 + e_2, r = l/a = 0.8. The rotation part
conserves E, so E' = a (g_1 + g_2) along orbits, with g(y) = s^2 - r y s, and div f = 2 (a - l) - a (s_1^2 + s_2^2).

1. *Orbits are bounded, closed ones small.* g is at most 0.031 (near y = 0.61), and below -0.031 for |y| >= 1.03, where
   it falls with |y|. So E' >= 0 only where both |y_i| < 1.03, where E < E* = 2 log cosh 1.03: E falls elsewhere, and
   every orbit ends in E <= E*, where |y_i| <= Y = arccosh(cosh^2 1.03) < 1.57.
2. *The origin is the only point of rest, and repels.* With y also (y_2, -y_1) is an orbit, so let y_1 > 0 and y_2 >= 0
   be at rest. Then l y_2 = -w s_1 + a s_2 >= 0 gives s_2 >= (w/a) s_1 > s_1, so y_2 > y_1; but l y_1 = a s_1 + w s_2 <
   l y_2 = a s_2 - w s_1 asks for (a + w) s_1 < (a - w) s_2 < 0. At the origin the eigenvalues are a - l +- i w.
3. *There is a closed orbit, and every orbit but the origin tends to one*: Poincare and Bendixson, with 1 and 2.
4. *There is only one* (Dulac). With B = 1/E, E^2 div(B f) = E div f - E' = a [h(y_1) + h(y_2) - e_1 s_2^2 - e_2 s_1^2],
   h(y) = e (1 + q) - s^2 - r (2 e - y s). If h < 0 for 0 < |y| <= Y, then div(B f) < 0 in E <= E* but at the origin.
   Two closed orbits, both around the origin, would bound a ring through whose edges nothing of B f flows: no.
   Along a closed orbit the integral of div f is that of E div(B f), since that of E'/E is 0: log of the multiplier < 0.
5. *h < 0.* h(0) = 0, and h' = s q (x - 2 e) - r q (sinh y cosh y - y) with x = sinh^2 y, which for y > 0 is negative
   exactly where 1 - r < R(y) = (s (1 + 2 e) - y)/(sinh y cosh y - y). The derivatives of numerator and denominator
   have the ratio q/2 + q e/x, both terms of which fall with y > 0 (2 e/x = log(1 + x)/x), so R falls as well (a
   monotone form of l'Hopital's rule), and R(1.57) > 0.24 > 1 - r = 0.2. QED

Numbers in 1 and 5 are one-variable functions at single points; tests check them, and the sign in 4 on a grid. The
period and the multiplier are measured.
Source: Poincare and Bendixson, Dulac: Perko, *Differential Equations and Dynamical Systems* (2001), sections 3.7, 3.9.
The proof is elementary and ours.
"""

import dataclasses

import numpy as np

from ..fields import CurrentRNN


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """A network with limit cycles, and what is known of them.

    **Attributes:** `name`; `field`, a `jo.CurrentRNN`; `period` of the cycle (of each of a pair), and its `largest`
    multiplier but for the 1 of the flow, both measured; `cycles`, how many attract, mirror images counted; `proven`,
    whether that number is; `known`, in words.
    """

    name: str
    field: CurrentRNN
    period: float
    largest: float
    cycles: int
    proven: bool
    known: str


PROVEN = "Exactly one closed orbit, which attracts all but the origin: see jaxosc.orbits.gallery for the proof."

FOUR = (
    (0.53, -0.01, -0.8, -3.41),
    (0.03, 1.39, 1.57, -0.8),
    (3.34, 2.92, -0.34, -0.23),
    (1.44, -0.38, 0.34, 1.83),
)
"""Normal entries of variance 9/4 from `numpy.random.default_rng(25)`, rounded: the first seed with a pair of cycles."""

EIGHT = (
    (-1.21, -1.13, -0.8, 0.82, -1.1, -1.09, -0.42, 1.47),
    (-0.97, -0.74, 0.21, 0.15, 0.41, -0.61, -0.99, -1.42),
    (0.35, -0.22, 0.45, 0.05, 1.47, 0.62, 0.18, 0.05),
    (-0.54, -0.41, -0.34, 1.61, -0.2, -0.63, 0.26, 0.77),
    (-1.2, -2.47, -0.29, 1.09, -0.73, 0.67, 0.35, 0.73),
    (-0.68, -0.37, 1.71, 0.73, -2.65, 1.34, 2.13, -0.28),
    (0.87, -0.9, 0.05, 0.09, -0.66, 0.96, 0.58, 0.68),
    (0.96, -2.31, 0.37, -1.7, -0.45, -0.04, -1.16, 0.12),
)
"""Normal entries of variance 9/8 from `numpy.random.default_rng(40)`, rounded: a cycle beside points of rest."""


def gallery() -> dict[str, Example]:
    """Networks with limit cycles by name: "proven", "planar", "pair_of_four" and "beside_rest"; see the module.

    All use tanh; weights have the default float type of JAX.
    """
    examples = (
        Example(
            name="proven",
            field=CurrentRNN(np.array([[1.25, 2.0], [-2.0, 1.25]]), leak=1.0),
            period=3.95042778,
            largest=0.2337,
            cycles=1,
            proven=True,
            known=PROVEN,
        ),
        Example(
            name="planar",
            field=CurrentRNN(np.array([[0.12, 2.0], [-1.0, -0.1]])),
            period=5.99549850,
            largest=0.9374,
            cycles=1,
            proven=False,
            known=(
                "No leak: nothing but W keeps the orbits in. The origin repels (trace 0.02) and is the only point of"
                " rest. All starts tried, from |y| = 0.01 to 6, end on one cycle, through (1.50386316, 0); that it is"
                " the only one is not proven."
            ),
        ),
        Example(
            name="pair_of_four",
            field=CurrentRNN(np.array(FOUR), leak=1.0),
            period=3.58163519,
            largest=0.5143,
            cycles=2,
            proven=False,
            known="A cycle and its mirror image -y, each with about half of the starts; no other end was seen.",
        ),
        Example(
            name="beside_rest",
            field=CurrentRNN(np.array(EIGHT), leak=1.0),
            period=9.15528309,
            largest=0.2425,
            cycles=1,
            proven=False,
            known=(
                "A cycle that is its own mirror image has 39 to 51 % of the starts with 0.1 < |y| < 3 (114 of 256),"
                " points of rest have the others."
            ),
        ),
    )
    return {example.name: example for example in examples}
