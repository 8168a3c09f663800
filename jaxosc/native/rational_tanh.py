"""tanh x = 2 r / (1 + r^2) with r = x P(x^2) / Q(x^2), for compiled loops that have no fast tanh of their own.

r stands for tanh(x / 2), and what it lacks hardly shows where tanh is near 1: its share of the relative error of tanh x
is 1 / cosh x. So P and Q need few terms, and one more squaring costs less than the terms that a fit of tanh x itself
needs (10 and 10 in float64, where 6 and 7 are enough). A fit of least relative error of tanh x, by repeatedly
reweighted least squares in 60 digits: 7e-9 for float32 and 5e-17 for float64. Beyond `MOST` tanh has rounded to 1 and x
is clamped. An exponential costs more in float32, and loses digits near zero. Computed in the type itself, at 4 10^6
places, it is right to 5.2 units in the last place in float32 and 5.6 in float64, 0.4 and 0.6 on average.
"""

MOST = {"float32": 9.05, "float64": 19.1}
"""Where x is clamped."""

TOP = {
    "float32": (
        0.499999996357538,
        0.014882475977307137,
        5.703529004306258e-05,
    ),
    "float64": (
        0.5,
        0.01801086901762545,
        0.00015161178936192897,
        4.262001040508554e-07,
        4.030643628196945e-10,
        9.069968395139538e-14,
    ),
}
"""P, from the constant up."""

BOTTOM = {
    "float32": (
        1.0,
        0.1130982355879068,
        0.0012056335344552641,
        1.225345825584649e-06,
    ),
    "float64": (
        1.0,
        0.11935507136858373,
        0.0019161461927732263,
        9.15962312127737e-06,
        1.5171084251244694e-08,
        7.585321560179598e-12,
        5.201030079085889e-16,
    ),
}
"""Q, from the constant up."""
