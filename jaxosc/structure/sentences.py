"""The verdict in words: why W is of its kind, and what is true of the nonlinear network.

The facts behind the sentences, for y' = W sigma(y) without bias and leak. With any d > 0 and H = sum_i d_i Phi(y_i),

    dH/dt = sum_ij d_i sigma_i w_ij sigma_j = sigma^T (D W + W^T D) sigma / 2,

which is 0 for hidden skewness, and has a sign where the symmetric part of D W, or what has the same signs, of
D^(1/2) W D^(-1/2), is definite. Level sets of H keep orbits in when Phi tends to infinity on both sides, as it does
for every odd increasing sigma.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..activation_check import check_activation
from ..activations import Identity

if TYPE_CHECKING:
    from .verdict import Structure

_NEAR = 1e-4
"""A residual that numbers printed with five digits would explain."""


def reason(verdict: "Structure") -> str:
    """Why a single W has its kind, with the numbers."""
    if verdict.kind == "skew":
        if not verdict.matrix.any():
            return "W is zero, which is skew: nothing ever moves."
        return (
            f"W is skew: max |W + W.T| is {verdict.skew_residual:.2g} of max |W|, and up to {_allowed(verdict)} passes"
            " for rounding."
        )
    if verdict.kind == "symmetrizable":
        return (
            f"W = S diag(d) with S skew and d from {verdict.d.min():.4g} to {verdict.d.max():.4g}: scaled by sqrt(d) W"
            f" is skew but for {verdict.symmetrizable_residual:.2g}, and up to {_allowed(verdict)} passes for rounding."
        )
    if verdict.kind == "linear_centre":
        return (
            f"W is no S diag(d) with S skew ({_misfit(verdict)}), but all its eigenvalues are imaginary (after a"
            f" change of W by {verdict.real_part:.1g} of its norm) and semisimple (by {verdict.semisimplicity:.1g}),"
            f" and up to {_allowed(verdict)} passes for rounding."
        )
    near = ""
    if verdict.symmetrizable_residual < _NEAR:
        near = f" It misses S diag(d) by {verdict.symmetrizable_residual:.1e} only: give a larger tolerance if its"
        near += " numbers are rounded."
    return f"W is no S diag(d) with S skew ({_misfit(verdict)}), and no linear centre: {_off_centre(verdict)}.{near}"


def consequences(verdict: "Structure") -> list[str]:
    """What is true of y' = W sigma(y) with the verdict's activation, no bias and no leak, for a single W."""
    if not verdict.matrix.any():
        return ["Every state is a point of rest, and every function of the state is conserved."]
    name = _name(verdict.activation)
    told = {
        "skew": _conservative,
        "symmetrizable": _conservative,
        "linear_centre": _linear_centre,
        "none": _unstructured,
    }[verdict.kind](verdict, name)
    return [*told, _casimirs(verdict), *_reversal(verdict, name)]


def level_sets_bounded(activation: Any) -> bool:
    """Whether the energy keeps orbits in: known for odd increasing sigma, measured for the rest."""
    if activation.odd and activation.monotone:
        return True
    return check_activation(activation).level_sets_bounded


def _conservative(verdict: "Structure", name: str) -> list[str]:
    weights = "" if verdict.kind == "skew" else "d_i "
    told = [f"The energy H(y) = sum_i {weights}Phi(y_i) is conserved, whatever sigma is."]
    rank = verdict.size - verdict.casimirs
    if isinstance(verdict.activation, Identity):
        several = f"a sum of {rank // 2} oscillations" if rank > 2 else "one oscillation"
        return [*told, f"The network is linear: every orbit is bounded, {several} around a point of rest."]
    if not level_sets_bounded(verdict.activation):
        held = "" if verdict.size == 2 else "; they stay bounded if some c with all c_i > 0 has W c = 0"
        return [*told, f"Its level sets are not bounded for {name}: orbits can escape although H is conserved{held}."]
    told.append(f"Its level sets are bounded for {name}: every orbit stays bounded for ever.")
    if rank == 2:
        told.append("W has rank 2: orbits run along closed curves, periodic but for those that meet a point of rest.")
    else:
        told.append("Orbits run on tori at small energy; at larger energy they can be chaotic.")
    told.append("Oscillations come in families, one for each energy: there is no limit cycle that attracts others.")
    return told


def _linear_centre(verdict: "Structure", name: str) -> list[str]:
    if isinstance(verdict.activation, Identity):
        return [
            "The network is linear: every orbit is bounded and oscillates around a point of rest, and a positive"
            " quadratic form of y is conserved."
        ]
    return [
        f"With {name} nothing is conserved that is known: the linear network oscillates for ever, but the nonlinear"
        " terms decide whether orbits close, spiral in or spiral out.",
        *_trend(verdict, name),
    ]


def _unstructured(verdict: "Structure", name: str) -> list[str]:
    if not isinstance(verdict.activation, Identity):
        trend = _trend(verdict, name)
        return trend or [
            f"With {name} no conserved energy is known, and the symmetric part of W, being indefinite, says nothing of"
            " where orbits go."
        ]
    return [f"The network is linear: {_linear_fate(verdict)}."]


def _linear_fate(verdict: "Structure") -> str:
    if verdict.real_part <= verdict.tolerance:
        return "nearly every orbit grows like a power of time"
    fastest = verdict.eigenvalues.real.max()
    # Eigenvalues that share an eigenvector come apart by the root of rounding.
    lost = verdict.tolerance if verdict.semisimplicity <= verdict.tolerance else np.sqrt(verdict.tolerance)
    noise = lost * np.abs(verdict.eigenvalues).max()
    if fastest < -noise:
        return f"every orbit collapses to 0, the slowest like exp({fastest:.3g} t)"
    if fastest <= noise:
        return "no orbit grows exponentially, and a part of nearly every one decays"
    return f"nearly every orbit escapes like exp({fastest:.3g} t)"


def _trend(verdict: "Structure", name: str) -> list[str]:
    """What a semidefinite symmetric part says; nothing if it is indefinite."""
    if verdict.symmetric_part in ("indefinite", "zero"):
        return []
    sign, definite = verdict.symmetric_part.split()[0], verdict.symmetric_part.endswith(" definite")
    falls = sign == "negative"
    kept_in = level_sets_bounded(verdict.activation)
    how = ("falls" if falls else "rises") if definite else ("never rises" if falls else "never falls")
    told = f"The symmetric part of W is {verdict.symmetric_part}: an energy sum_i d_i Phi(y_i) with d > 0 {how}"
    if not kept_in:
        return [f"{told}, but its level sets are not bounded for {name}."]
    if not definite:
        return [f"{told}" + (", so every orbit stays bounded." if falls else ", so no orbit collapses.")]
    if not verdict.activation.odd or not verdict.activation.monotone:
        return [f"{told} wherever sigma(y) is not 0."]
    fate = "collapses" if falls else "escapes, but that of rest"
    return [f"{told} wherever sigma(y) is not 0, so every orbit {fate}."]


def _casimirs(verdict: "Structure") -> str:
    count = verdict.casimirs
    if count == 0:
        return "W has full rank: no Casimir, that is no linear c.y that is conserved."
    several = "one Casimir" if count == 1 else f"{count} independent Casimirs"
    return f"W has rank {verdict.size - count}: {several} c.y with c W = 0, conserved whatever sigma is."


def _reversal(verdict: "Structure", name: str) -> list[str]:
    found = verdict.reversal
    if found is None:
        if isinstance(verdict.activation, Identity):  # any linear map may reverse it, which is not looked for
            return []
        return [f"No exchange or change of sign of neurons was found that turns time round for {name}."]
    exchanged = [(i, j) for i, j in enumerate(np.argmax(np.abs(found), axis=0)) if i < j]
    negative = [i for i in range(len(found)) if found[:, i].sum() < 0]
    how = []
    if exchanged:
        how.append("exchanging neurons " + ", ".join(f"{i} and {j}" for i, j in exchanged))
    if negative:
        how.append("changing the sign of " + ", ".join(map(str, negative)))
    orbits = "" if verdict.conservative else "; an orbit that meets the unchanged states twice closes"
    return [f"Time reversal: {' and '.join(how)} turns time round{orbits}."]


def _misfit(verdict: "Structure") -> str:
    """The worst entry: on the diagonal, a pair of one sign, or one that closes a cycle wrongly."""
    scaled = verdict.scaled
    defect = np.abs(scaled + scaled.T)
    i, j = (int(k) for k in np.unravel_index(np.argmax(defect), defect.shape))
    if i == j:
        return f"W[{i}, {i}] = {verdict.matrix[i, i]:.4g} is not 0"
    pair = f"W[{i}, {j}] = {verdict.matrix[i, j]:.4g} and W[{j}, {i}] = {verdict.matrix[j, i]:.4g}"
    if verdict.matrix[i, j] * verdict.matrix[j, i] >= 0:
        return f"{pair} are not of opposite sign"
    return f"{pair} do not fit the d that the other entries ask for"


def _off_centre(verdict: "Structure") -> str:
    limit = verdict.tolerance
    if verdict.real_part <= limit:
        return (
            "its eigenvalues are imaginary up to rounding, but some that meet share an eigenvector (W would have to"
            f" change by {verdict.semisimplicity:.2g} of its norm, and up to {_allowed(verdict)} passes for rounding)"
        )
    worst = verdict.eigenvalues[::-1][np.argmax(np.abs(verdict.eigenvalues.real[::-1]))]
    return f"its eigenvalue {worst:.4g} is not imaginary"


def _allowed(verdict: "Structure") -> str:
    return f"{verdict.tolerance:.1e}"


def _name(activation: Any) -> str:
    return str(getattr(getattr(activation, "fn", None), "__name__", type(activation).__name__))
