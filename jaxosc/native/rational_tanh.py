"""tanh x = x P(x^2) / Q(x^2), for compiled loops that have no fast tanh of their own.

A fit of least relative error, by repeatedly reweighted least squares in 70 digits: 3e-8 for float32 on |x| <= 8.5 and
3.5e-17 for float64 on |x| <= 18.5. Beyond, tanh has rounded to 1 and x is clamped. An exponential costs more in
float32, and loses digits near zero. Computed in the type itself it is right to 4 units in the last place in float32 and
6 in float64.
"""

MOST = {"float32": 8.5, "float64": 18.5}
"""Where x is clamped."""

TOP = {
    "float32": (
        0.999999968358316465,
        0.129533747894620114,
        0.00295765849866291012,
        9.6092591084243549e-6,
        -1.38307545841363429e-8,
        2.10289786635147938e-11,
    ),
    "float64": (
        0.999999999999999966,
        0.151883560889487437,
        0.00598641300189854625,
        9.40446854515590107e-5,
        6.89414919294435758e-7,
        2.48065561704922674e-9,
        4.28338919216924349e-12,
        3.19170882711179405e-15,
        7.87296375740502966e-19,
        2.72210418212566419e-23,
    ),
}
"""P, from the constant up."""

BOTTOM = {
    "float32": (1.0, 0.462866800320312891, 0.0239136733661877143, 0.000233232040266469745),
    "float64": (
        1.0,
        0.485216894222820325,
        0.0343920444095062723,
        0.000830727560497369105,
        8.81272143413772647e-6,
        4.51910608818430912e-8,
        1.13472623064892144e-10,
        1.31330881903670692e-13,
        5.91967250028147376e-17,
        6.68550545032298164e-21,
    ),
}
"""Q, from the constant up."""
