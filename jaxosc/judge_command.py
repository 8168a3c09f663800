"""What `jaxosc judge` asks for, and the page it prints: verdict, spectrum, invariants, consequences, census."""

import dataclasses
import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ._errors import JaxoscError

if TYPE_CHECKING:
    from .structure import Structure

_WIDTH = 110
_INDENT = 13
_STARTS = ((16, 32), (64, 8), (math.inf, 0))
"""Up to how many neurons there are how many random starts, if nobody says."""

_MOST_LISTED = 12
"""Eigenvalues and energy weights of large networks that are listed; the rest is counted."""


def _option(help: str, **settings: Any) -> Any:
    return Parameter(help=help, negative="", show_default=False, **settings)


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class JudgeOptions:
    """The activation that the consequences are for, and how the file is read."""

    activation: Annotated[str, _option('name, or "file.py:object" for your own; tanh if not given')] = "tanh"
    weight_part: Annotated[str | None, _option("skew: take the skew part (W - W.T)/2 of the file's matrix")] = None
    tolerance: Annotated[
        float | None, _option("largest relative residual; rounding of the file's dtype if not given")
    ] = None
    starts: Annotated[
        int | None,
        _option("random starts of the orbit census, 0 for none; 32 for n <= 16, 8 for n <= 64, else 0 if not given"),
    ] = None
    radius: Annotated[float, _option("their size: entries are radius * N(0, 1); 1 if not given")] = 1.0
    seed: Annotated[int, _option("they follow from it; 0 if not given")] = 0


def examine(path: Path, options: JudgeOptions) -> str:
    """The page on the matrix of a file.

    **Raises:** `JaxoscError` for unknown names, files that hold no square matrix, and as `jo.structure`.
    """
    from .structure import structure
    from .sweeps import catalogue
    from .sweeps.values import one_of, read_matrix_as_stored

    if options.weight_part is not None:
        one_of("--weight-part", options.weight_part, ("skew",))
    activation = catalogue.ACTIVATION.choice(options.activation).value
    matrix = read_matrix_as_stored(path)
    if options.weight_part == "skew":
        matrix = 0.5 * matrix - 0.5 * matrix.T
        if not matrix.any():
            raise JaxoscError(
                f"Got a matrix in {path.name} without a skew part, expected W != W.T: leave --weight-part out."
            )
    verdict = structure(matrix, activation, tolerance=options.tolerance)
    sections = {
        "reason": [verdict.reason],
        "spectrum": _spectrum(verdict),
        "invariants": _invariants(verdict),
        f"with {options.activation}": verdict.consequences,
        "orbits": _census(matrix, activation, options),
    }
    head = f"{path.name}: {verdict.kind}   ({verdict.size} neurons, {verdict.dtype})"
    return "\n".join([head, *(line for name, told in sections.items() for line in _section(name, told))])


def _census(matrix: Any, activation: Any, options: JudgeOptions) -> list[str]:
    """What kinds of orbit random starts lie on, and a few numbers of each kind."""
    from .sweeps.values import positive, whole_number

    n = len(matrix)
    count = next(many for limit, many in _STARTS if n <= limit) if options.starts is None else options.starts
    count, radius = whole_number("--starts", count, 0), positive("--radius", options.radius)
    seed = whole_number("--seed", options.seed, 0)
    if count == 0:
        return [f"no census; --starts {_STARTS[0][1]} follows so many random starts and tells their kinds of orbit"]
    import jax
    import numpy as np

    from .fields import CurrentRNN
    from .orbits import ORBITS, classify

    with jax.enable_x64(True):
        network = CurrentRNN(np.asarray(matrix, np.float64), activation)
        starts = radius * np.random.default_rng(seed).standard_normal((count, n))
        found = classify(network, starts)
    law = f"of {count} random starts (entries {radius:g} * N(0, 1), seed {seed})"
    told = [law]
    for code, word in enumerate(ORBITS):
        here = np.asarray(found.code) == code
        if here.any():
            told.append(f"{int(here.sum())} {word.replace('_', ' ')}{_facts(word, found, here)}")
    return told


def _facts(word: str, found: Any, here: Any) -> str:
    """The numbers that belong to a kind, over its orbits."""
    import numpy as np

    def span(values: Any, digits: str = ".4g") -> str:
        low, middle, high = np.nanquantile(np.asarray(values)[here], (0, 0.5, 1))
        return f"{middle:{digits}}" if low == high else f"{middle:{digits}} ({low:{digits}} to {high:{digits}})"

    if word == "periodic" and np.isfinite(np.asarray(found.period)[here]).any():
        return f": period {span(found.period)}"
    if word == "chaotic":
        return f": largest exponent {span(found.exponent, '.2g')}"
    if word == "quasi_periodic" and np.asarray(found.num_frequencies)[here].any():
        return f": independent frequencies {span(found.num_frequencies, '.0f')}"
    return ""


def _section(name: str, told: list[str]) -> list[str]:
    """The sentences of a section, indented, with its name beside the first or on a line of its own."""
    margin = " " * _INDENT
    beside = len(name) < _INDENT - 2
    lines = [] if beside else [f"  {name}"]
    for k, text in enumerate(told):
        first = f"  {name:<{_INDENT - 2}}" if beside and k == 0 else margin
        lines += textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=margin + "  ")
    return lines


def _spectrum(verdict: "Structure") -> list[str]:
    """The eigenvalues of y' = W y as oscillations and rates; what is 0 up to rounding for its kind is told as 0."""
    centre = verdict.kind != "none"
    values = sorted(verdict.eigenvalues, key=abs)
    resting = verdict.casimirs if centre else sum(value == 0 for value in values)
    told = [_mode(value, centre) for value in reversed(values[resting:]) if value.imag >= 0]
    listed = told[:_MOST_LISTED]
    if len(told) > len(listed):
        listed.append(f"and {len(told) - len(listed)} slower ones")
    if resting:
        listed.append(f"{resting} eigenvalue{'s' if resting > 1 else ''} 0: directions at rest")
    return listed


def _mode(value: complex, centre: bool) -> str:
    """One eigenvalue, or a pair of complex ones."""
    rate = 0.0 if centre else value.real
    turning = "" if centre else f"grows like exp({rate:.4g} t)" if rate > 0 else f"decays like exp({rate:.4g} t)"
    if value.imag == 0:
        return f"real {value.real:.6g}: {turning or 'at rest'}"
    period = 2 * math.pi / value.imag
    told = f"angular frequency {value.imag:.6g}: period {period:.6g}, frequency {1 / period:.6g}"
    return told if centre or rate == 0 else f"{told}, {turning}"


def _invariants(verdict: "Structure") -> list[str]:
    from .activations import Identity

    count = verdict.casimirs
    casimirs = f"{count} Casimir{'' if count == 1 else 's'} c.y (c W = 0)"
    if not verdict.conservative:
        quadratic = verdict.kind == "linear_centre" and isinstance(verdict.activation, Identity)
        return ["a positive quadratic form of y" if quadratic else "no energy is known", casimirs]
    if verdict.kind == "skew":
        return ["energy H(y) = sum_i Phi(y_i)", casimirs]
    shown = ", ".join(f"{weight:.6g}" for weight in verdict.d[:_MOST_LISTED])
    more = ", ..." if verdict.size > _MOST_LISTED else ""
    return [f"energy H(y) = sum_i d_i Phi(y_i), d = {shown}{more}", casimirs]
