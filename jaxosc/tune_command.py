"""What `jaxosc tune` asks for, and the page it prints: what was wanted, what came of it, where it is, how to run it."""

import dataclasses
import math
import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from ._errors import JaxoscError
from .saved import save

if TYPE_CHECKING:
    from .fields import AbstractField
    from .tuning import Tuned

_GOAL = Group("Goal, one of", sort_key=1)
_NETWORK = Group("Network", sort_key=2)
_FILES = Group("Files", sort_key=3)

_WIDTH = 110
_INDENT = 13
_NEURONS = 8
_FEWEST_NEURONS = 2
_PICTURES = (".png", ".pdf", ".svg")

_TURNS = 10
"""Of the frequency, in the run that the page shows and the picture draws."""

_ONE, _SEVERAL, _WAVEFORM = "one frequency", "several frequencies", "a waveform"
_ONLY_FOR = {"members": (_ONE,), "radius": (_ONE,), "energy": (_SEVERAL,), "seed": (_ONE, _SEVERAL)}
"""Options that other goals have no use for."""


def _option(help: str, group: Group, **settings: Any) -> Any:
    return Parameter(help=help, group=group, negative="", show_default=False, **settings)


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class TuneOptions:
    """The goal, the network that is to reach it, and where it goes."""

    frequency: Annotated[
        list[str] | None, _option("cycles per unit of time: 1.3, or several that sound together: 8,13", _GOAL)
    ] = None
    waveform: Annotated[
        Path | None, _option(".csv file with times in its first column and signals in the others", _GOAL)
    ] = None
    neurons: Annotated[
        int | None,
        _option("8 if not given; 2 for each of several frequencies; for a waveform what its data call for", _NETWORK),
    ] = None
    activation: Annotated[str, _option("name; tanh if not given", _NETWORK)] = "tanh"
    members: Annotated[
        int | None, _option("so many networks for one frequency, of the seeds from --seed on; 1 if not given", _NETWORK)
    ] = None
    seed: Annotated[int | None, _option("the random W and start follow from it; 0 if not given", _NETWORK)] = None
    radius: Annotated[
        float | None, _option("standard deviation of the start's entries, 1 if not given (one frequency)", _NETWORK)
    ] = None
    energy: Annotated[
        float | None, _option("H of the start, 0 (all but linear) if not given (several frequencies)", _NETWORK)
    ] = None
    out: Annotated[Path, _option("file of the result, .npz; tuned.npz if not given", _FILES)] = Path("tuned.npz")
    overwrite: Annotated[bool, _option("replace a file that exists", _FILES)] = False
    picture: Annotated[Path | None, _option("draw the orbit into this .png, .pdf or .svg file", _FILES)] = None


def examine(options: TuneOptions) -> tuple[str, bool]:
    """Tune, save, and draw; the page, and whether the goal was reached (by all members).

    **Raises:** `JaxoscError` for options that do not go together, files that cannot be used, and as
    `jo.tuning.tune_frequency`, `design` and `fit_waveform`. All that can be known is known before the work.
    """
    import jax

    goal, frequencies = _goal(options)
    _check_options(goal, options)
    activation = _activation(options.activation)
    with jax.enable_x64(True):
        if goal == _ONE:
            result, reached, sections = _one(frequencies[0], activation, options)
        elif goal == _SEVERAL:
            result, reached, sections = _several(frequencies, activation, options)
        else:
            result, reached, sections = _played(activation, options)
        save(options.out, result)
        sections["saved"] = [f"{options.out}   ({options.out.stat().st_size / 1000:.1f} kB)"]
        if options.picture is not None:
            _draw(result, options.picture)
            sections["picture"] = [str(options.picture)]
        sections["run it"] = _program(result, options.out)
    word = "fitted" if goal == _WAVEFORM else "reached" if reached else "not reached"
    asked = options.waveform if goal == _WAVEFORM else " and ".join(f"{value:g}" for value in frequencies)
    head = f"{asked}: {word}   ({result.y0.shape[-1]} neurons, {options.activation}, float64)"
    return "\n".join([head, *(line for name, told in sections.items() for line in _section(name, told))]), reached


def _goal(options: TuneOptions) -> tuple[str, list[float]]:
    """What is asked for, and the frequencies of it."""
    from .sweeps.values import positive

    if (options.frequency is None) == (options.waveform is None):
        given = "neither --frequency nor" if options.waveform is None else "both --frequency and"
        raise JaxoscError(
            f"Got {given} --waveform, expected one of them: jaxosc tune --frequency 1.3, or jaxosc tune --waveform"
            " FILE.csv."
        )
    if options.frequency is None:
        return _WAVEFORM, []
    words = [word.strip() for entry in options.frequency for word in entry.split(",")]
    try:
        frequencies = [float(word) for word in words]
    except ValueError as error:
        raise JaxoscError(f"Got --frequency {','.join(words)}, expected numbers > 0, as in 1.3 or 8,13.") from error
    return (_ONE if len(frequencies) == 1 else _SEVERAL), [positive("--frequency", value) for value in frequencies]


def _check_options(goal: str, options: TuneOptions) -> None:
    from .sweeps.values import positive, whole_number

    for name, goals in _ONLY_FOR.items():
        if getattr(options, name) is not None and goal not in goals:
            raise JaxoscError(f"Got --{name} for {goal}, expected it for {' or '.join(goals)} only: leave it out.")
    for name, least in (("neurons", _FEWEST_NEURONS), ("members", 1), ("seed", 0)):
        if getattr(options, name) is not None:
            whole_number(f"--{name}", getattr(options, name), least)
    if options.radius is not None:
        positive("--radius", options.radius)
    _check_place("--out", options.out, (".npz",), options.overwrite)
    if options.picture is not None:
        _check_place("--picture", options.picture, _PICTURES, options.overwrite)


def _check_place(name: str, path: Path, suffixes: tuple[str, ...], overwrite: bool) -> None:
    """Refuse before the work what would be refused after it."""
    if path.suffix not in suffixes:
        raise JaxoscError(f"Got {name} {path}, expected a name that ends with {' or '.join(suffixes)}.")
    if not path.parent.is_dir():
        raise JaxoscError(f"Got {name} {path}, expected a folder that is there: make {path.parent} first.")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise JaxoscError(f"Got {name} {path}, which cannot be written, expected a file of yours: take another.")
    if path.exists() and not overwrite:
        raise JaxoscError(f"Got {name} {path}, which is there already: take another name, or add --overwrite.")


def _activation(name: str) -> Any:
    from .sweeps import catalogue

    if ":" in name:
        raise JaxoscError(
            f"Got --activation {name}, expected a name, since a function of your own cannot be saved: call jo.tuning"
            " in Python for it."
        )
    return catalogue.ACTIVATION.choice(name).value


def _one(frequency: float, activation: Any, options: TuneOptions) -> tuple[Any, bool, dict[str, list[str]]]:
    """One frequency: a random network, or many, in the time scale that makes it."""
    from .tuning import tune_frequency

    field, y0 = _random(activation, options)
    # Two neurons are on a closed orbit wherever they start.
    tuned = tune_frequency(field, y0, frequency, closed=field.size > 2)
    return tuned, bool(tuned.reached.all()), _told(tuned, options)


def _random(activation: Any, options: TuneOptions) -> "tuple[AbstractField, Any]":
    """The networks and starts of the seeds, without a batch axis if there is only one."""
    import jax

    from .fields import CurrentRNN
    from .weights import DenseSkew

    neurons = _NEURONS if options.neurons is None else options.neurons
    radius = 1.0 if options.radius is None else options.radius

    def drawn(seed: Any) -> Any:
        key = jax.random.key(seed)
        start = radius * jax.random.normal(jax.random.fold_in(key, 1), (neurons,))
        return CurrentRNN(DenseSkew.random(key, neurons), activation), start

    seeds = _seeds(options)
    return drawn(seeds[0]) if len(seeds) == 1 else jax.vmap(drawn)(jax.numpy.array(seeds))


def _seeds(options: TuneOptions) -> range:
    first = 0 if options.seed is None else options.seed
    return range(first, first + (1 if options.members is None else options.members))


def _told(tuned: "Tuned", options: TuneOptions) -> dict[str, list[str]]:
    """What became of one network, or of many."""
    import jax

    from .tuning import Outcome

    seeds, n = _seeds(options), tuned.y0.shape[-1]
    drawn = "seed" if len(seeds) == 1 else f"{len(seeds)} seeds from"
    sections = {"network": [f"jo.weights.DenseSkew.random, {drawn} {seeds[0]}, run faster or slower as a whole"]}
    if n > 2:
        sections["network"].append("the start, N(0, 1) in every entry, moved onto a closed orbit")
    if len(seeds) > 1:
        sections["outcomes"] = [line.strip() for line in repr(tuned).splitlines()[1:]]
        missed = [seed for seed, good in zip(seeds, tuned.reached, strict=True) if not good]
        if missed:
            sections["outcomes"].append(f"not reached by seed {', '.join(map(str, missed[:12]))}")
        return sections
    wanted, found = float(tuned.target), float(tuned.frequency)
    energy = float(jax.jit(lambda field, y: field.energy(y))(tuned.field, tuned.y0))
    outcome = Outcome(int(tuned.result))
    measured = ["no frequency"]
    if math.isfinite(found):
        measured = [
            f"frequency {found:.10g}, period {1 / found:.10g}: {abs(found / wanted - 1):.1e} off",
            f"a longer run may find it {float(tuned.error):.1e} elsewhere",
        ]
    return sections | {
        "wanted": [f"frequency {wanted:.10g}, period {1 / wanted:.10g}"],
        "measured": measured,
        "energy": [f"H = {energy:.6g}"],
        "outcome": [f"{outcome.name.replace('_', ' ')}: {outcome.advice}"],
    }


def _several(frequencies: list[float], activation: Any, options: TuneOptions) -> tuple[Any, bool, dict[str, list[str]]]:
    """Several frequencies: a network whose orbit is a torus with all of them."""
    import jax

    from .tuning import design

    found = design(
        jax.numpy.array(frequencies),
        options.neurons,
        energy=0.0 if options.energy is None else options.energy,
        activation=activation,
        throw=False,
        key=jax.random.key(0 if options.seed is None else options.seed),
    )
    return found, bool(found.reached), {"design": repr(found).splitlines()}


def _played(activation: Any, options: TuneOptions) -> tuple[Any, bool, dict[str, list[str]]]:
    """A waveform: a network and a readout that go on with it. There is no target to miss; the error is told."""
    from .tuning import fit_waveform, read_waveform

    found = fit_waveform(None, None, *read_waveform(options.waveform), neurons=options.neurons, activation=activation)
    return found, True, {"fit": repr(found).splitlines()}


def _first(result: Any) -> Any:
    """The network and start that are drawn: of many the first."""
    import jax

    many = result.field.batch_shape
    return jax.tree.map(lambda leaf: leaf[0], (result.field, result.y0)) if many else (result.field, result.y0)


def _span(result: Any) -> tuple[float, float]:
    """Duration and step of a run that shows the result, in two digits: ten turns of the slowest that was asked for."""
    import numpy as np

    field, _ = _first(result)
    step = 0.25 / float(np.linalg.norm(np.asarray(field.weight.matrix()), 2))
    wanted = getattr(result, "target", getattr(result, "targets", None))
    end = result.t1 - result.t0 if wanted is None else _TURNS / float(np.min(np.asarray(wanted)))
    return float(f"{end:.2g}"), float(f"{min(step, end / 64):.2g}")


def _program(result: Any, out: Path) -> list[str]:
    """Lines of Python that load the result and run it."""
    end, step = _span(result)
    lines = [
        "import jax, jaxosc as jo",
        'jax.config.update("jax_enable_x64", True)',
        f"found = jo.load({str(out)!r})",
    ]
    if callable(result):
        # A waveform: over ten times the data.
        return [*lines, f"ts = found.times({result.t0 + 10 * (result.t1 - result.t0):.6g})", "signal = found(ts)"]
    run = f"solver=jo.solvers.PoissonSplitting(4), t1={end}, dt={step}, save_every=1"
    return [*lines, f"run = jo.simulate(found.field, found.y0, {run})"]


def _draw(result: Any, path: Path) -> None:
    """The orbit in the plane, the one of the first member."""
    from .plotting import phase_portrait, style
    from .simulate import simulate
    from .solvers import PoissonSplitting

    field, y0 = _first(result)
    end, step = _span(result)
    run = simulate(field, y0, t1=end, dt=step, solver=PoissonSplitting(4), save_every=1, throw=False)
    with style():
        figure = phase_portrait(run, field=field).get_figure(root=True)
        assert figure is not None
        figure.savefig(path, dpi=150)


def _section(name: str, told: list[str]) -> list[str]:
    """Its name beside the first of its lines."""
    lines = []
    for k, text in enumerate(told):
        first = f"  {name if k == 0 else '':<{_INDENT - 2}}"
        # Short lines keep their columns, and those of a program can be copied.
        short = len(text) <= _WIDTH - _INDENT or name == "run it"
        parts = [text] if short else textwrap.wrap(text, _WIDTH - _INDENT)
        lines += [f"{first if j == 0 else ' ' * (_INDENT + 2)}{part}" for j, part in enumerate(parts)]
    return lines
