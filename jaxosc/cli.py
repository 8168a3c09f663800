"""The command line: `jaxosc sweep`, `resume`, `status`, `report`, `judge`, `audit`, `tune` and
`doctor`.

A command gathers its options, leaves every check to the library, and prints. Libraries that take time to load are
imported inside the commands, so that `--help` answers at once. What a person got wrong comes back as one sentence on
stderr and exit code 2; an interruption ends with 130 and says how to continue.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from . import __version__
from ._cache import cache_home
from ._cpu import configure_cpu
from ._errors import JaxoscError
from .audit_command import AuditOptions
from .judge_command import JudgeOptions
from .sweep_options import RUNNING, Axes, Matrix, Members, Running, option, study_of
from .tune_command import TuneOptions

if TYPE_CHECKING:
    from .sweeps import Status, Sweep

DEFAULT_OUT = Path("jaxosc-sweep")
_PAGE = "report.html"

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
"""What shells report for a process that Ctrl-C ended: 128 + SIGINT."""

app = App(
    name="jaxosc",
    help="""Simulate and sweep recurrent networks that oscillate for ever.

    `jaxosc sweep` without arguments runs the default study and draws a report,
    in a few minutes on a laptop.""",
    version=f"jaxosc {__version__}",
    help_format="plaintext",
    result_action="return_value",
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
)


@app.command(
    help_epilogue="""Examples:
  jaxosc sweep                                        the default study
  jaxosc sweep --dry-run                              only say what it would do
  jaxosc sweep --activation tanh,erf --dt 0.01:1:9:log --draws 64 --out erf
  jaxosc sweep study.toml --x64                       a spec file, in float64
  jaxosc sweep chaos --out atlas                      which share of orbits is chaotic
  jaxosc sweep --weight connectome.npy --weight-part skew --normalise spectral
  jaxosc sweep --activation mine.py:softer            a function of your own"""
)
def sweep(
    spec: Annotated[
        Path | None, Parameter(help="spec file, or the name of a study: default (if not given) or chaos")
    ] = None,
    /,
    *,
    axes: Axes = Axes(),
    members: Members = Members(),
    matrix: Matrix = Matrix(),
    out: Annotated[Path, Parameter(help="folder of the dataset", group=RUNNING)] = DEFAULT_OUT,
    dry_run: Annotated[bool, option("print the plan and stop", group=RUNNING)] = False,
    x64: Annotated[bool, option("compute in float64", name="--x64", group=RUNNING)] = False,
    chunk_members: Annotated[
        int | None, option("most members of a chunk, the unit of work and of resuming", group=RUNNING)
    ] = None,
    running: Running = Running(),
) -> None:
    """Run a sweep into a dataset, and draw a report.

    Options override the spec file, or the default study when there is none.
    A folder that already holds a part of the same sweep is continued, and
    what is done is never done twice.
    """

    settings = axes.settings() | members.settings() | matrix.settings() | ({"dtype": "float64"} if x64 else {})
    study = study_of(spec, settings)
    options = running.options() | ({} if chunk_members is None else {"chunk_members": chunk_members})
    plan = study.plan(**options)
    before = None if dry_run else _already(out, study)
    _say(plan)
    if dry_run:
        return
    finished = before is not None and before.complete
    if before and finished:
        _say(
            f"{out} holds this very sweep, finished {before.finished}: nothing to compute. To run it again, delete the"
            " folder or give another --out."
        )
    else:
        if before:
            _say(f"{out} holds {before.chunks_done:,} of {before.chunks:,} chunks of this sweep: continuing.")
        _keep_compiled_programs()
        study.run(out, **options)
    _conclude(out, draw=running.report and not (finished and (out / _PAGE).exists()))


@app.command(help_epilogue="Example:\n  jaxosc resume jaxosc-sweep")
def resume(
    path: Annotated[Path, Parameter(help="folder of the dataset")] = DEFAULT_OUT, /, *, running: Running = Running()
) -> None:
    """Continue a sweep that was interrupted, from what its folder says.

    Every chunk that is done stays; the rest gives the same bits as an
    uninterrupted run would have.
    """
    from . import sweeps

    _keep_compiled_programs()
    sweeps.resume(path, **running.options())
    _conclude(path, draw=running.report)


@app.command(help_epilogue="Example:\n  jaxosc status jaxosc-sweep")
def status(path: Annotated[Path, Parameter(help="folder of the dataset")] = DEFAULT_OUT, /) -> None:
    """Say how far a sweep is; also while it runs."""
    from . import sweeps

    _say(str(sweeps.status(path)))


@app.command(help_epilogue="Example:\n  jaxosc report jaxosc-sweep --out stability.html")
def report(
    path: Annotated[Path, Parameter(help="folder of the dataset")] = DEFAULT_OUT,
    /,
    *,
    out: Annotated[Path | None, option("the page; report.html in the folder if not given")] = None,
) -> None:
    """Draw the report of a dataset again: one HTML page that needs nothing else."""
    _say(f"report   {_draw(path, out)}")


@app.command(
    help_epilogue="""Examples:
  jaxosc audit                                        tanh, four neurons, splitting
  jaxosc audit --solver euler --activation identity --duration 1000
  jaxosc audit W.npy --solver tsit5 --dt 0.2 --duration 1e5 --only energy,casimirs"""
)
def audit(
    matrix: Annotated[Path | None, Parameter(help=".npy or .csv file with one square W", show_default=False)] = None,
    /,
    *,
    options: AuditOptions = AuditOptions(),
) -> None:
    """Say what a solver keeps of a network, and how fast it loses the rest.

    Runs one network with fixed steps and gives a verdict on its energy, its
    Casimirs (conserved sums c.y), phase-space volume, oddness and time
    reversal: exact, bounded, or drifting like sqrt(t), t or exponentially,
    with the law, the confidence, and whose doing it is.
    """
    from .audit_command import examine

    _keep_compiled_programs()
    _say(str(examine(matrix, options)))


@app.command(
    help_epilogue="""Examples:
  jaxosc judge W.npy
  jaxosc judge W.npy --activation relu
  jaxosc judge W.npy --starts 100 --radius 3          a larger census, farther out
  jaxosc judge printed.csv --tolerance 1e-5           numbers with few digits
  jaxosc judge connectome.npy --weight-part skew"""
)
def judge(
    matrix: Annotated[Path, Parameter(help=".npy or .csv file with one square W")],
    /,
    *,
    options: JudgeOptions = JudgeOptions(),
) -> None:
    """Say what a weight matrix is, and what follows for its network.

    Whether W is skew, symmetrizable (W = S diag(d), S skew, d > 0), a linear
    centre, or none of these, and why; its spectrum; what the network with that
    activation conserves, and whether its orbits stay bounded; and on which
    kinds of orbit random starts lie, by following them for hundreds of turns.
    """
    from .judge_command import examine

    _keep_compiled_programs()
    with Console(stderr=True).status(f"Judging {matrix.name} and the orbits of random starts ..."):
        page = examine(matrix, options)
    _say(page)


@app.command(
    help_epilogue="""Examples:
  jaxosc tune --frequency 1.3                         eight neurons that turn 1.3 times a unit of time
  jaxosc tune --frequency 1.3 --neurons 2 --picture orbit.png
  jaxosc tune --frequency 10 --members 100 --out hundred.npz
  jaxosc tune --frequency 8,13                        both at once, in one network
  jaxosc tune --frequency 8,13 --energy 0.5           where tanh bends
  jaxosc tune --waveform ecg.csv --out ecg.npz        a network that plays a signal

The file is read in Python by jo.load("tuned.npz"), as the page says."""
)
def tune(*, options: TuneOptions = TuneOptions()) -> int:
    """Make a network that oscillates as you say, and save it.

    At one frequency: a random skew network, run faster or slower, from a start
    on a closed orbit. At several: a network whose orbit has all of them. Or as
    a recording goes: a network with a readout that plays it, and goes on.
    Frequencies are in cycles per unit of time; all is computed in float64.
    Ends with exit code 1 when a frequency was not reached, and says why; the
    best network that was found is saved all the same.
    """
    from .tune_command import examine

    _keep_compiled_programs()
    page, reached = examine(options)
    _say(page)
    return 0 if reached else 1


@app.command(help_epilogue="Example:\n  jaxosc doctor")
def doctor() -> int:
    """Say what this machine offers, and whether products run at full precision.

    Devices, threads, disk and versions, as jaxosc sees them. Ends with exit
    code 1 when something should be mended, and says what.
    """
    from .doctor import examine

    table, advice = examine(Path(), _keep_compiled_programs())
    _say(table)
    for sentence in advice:
        _say_aside(sentence)
    return 1 if advice else 0


def main(tokens: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code.

    **Arguments:** `tokens`, the words after `jaxosc`; those of the process if None.
    """
    # Where somebody calls this in a process that has computed before, its settings stay.
    with contextlib.suppress(JaxoscError):
        configure_cpu()
    sys.exit(run(sys.argv[1:] if tokens is None else tokens))


def run(tokens: Sequence[str]) -> int:
    """Run one command; its exit code: 0 done, 2 wrong input, 130 interrupted.

    1 where `doctor` found something to mend, and `tune` did not reach a frequency.
    """
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            return app(list(tokens)) or 0
        except CycloptsError as error:
            command = " ".join(["jaxosc", *(error.command_chain or ())])
            return _fail(f"{error} See {command} --help.")
        except JaxoscError as error:
            return _fail(str(error))
        except OSError as error:
            return _fail(f"Got {error}, expected files that can be used: mend that and run again.")
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED


def _already(out: Path, study: "Sweep") -> "Status | None":
    """How far `out` is with this very study, None if there is nothing of it."""
    from . import sweeps

    if not out.is_dir() or not any(out.iterdir()):
        return None
    found = sweeps.status(out)
    return found if found.spec_hash == study.hash else None


def _conclude(out: Path, *, draw: bool) -> None:
    """Draw the report if it is wanted, and end with the places of what there is."""
    if draw:
        _draw(out, None)
    _say(f"dataset  {out}   (xarray.open_zarr({str(out)!r}))")
    if (out / _PAGE).exists():
        _say(f"report   {out / _PAGE}")


def _draw(path: Path, out: Path | None) -> Path:
    from . import report

    _keep_compiled_programs()
    with Console(stderr=True).status("drawing the report"):
        return report.write(path, out=out)


def _keep_compiled_programs() -> Path | None:
    """Let XLA keep compiled programs in the user's cache folder; where, or None if that cannot be.

    Whoever set JAX's own option or variable (JAX_COMPILATION_CACHE_DIR) keeps their choice.
    """
    import jax

    chosen = jax.config.values["jax_compilation_cache_dir"]
    if chosen is not None:
        return Path(chosen)
    folder = cache_home() / "jaxosc" / "xla"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return folder


def _say(what: Any) -> None:
    """Print for a person: rich objects as they are, text unbroken so that paths can be copied."""
    Console(highlight=False).print(what, markup=False, soft_wrap=isinstance(what, str))


def _say_aside(what: str) -> None:
    """Print to stderr, where neither results nor pipes are disturbed."""
    Console(stderr=True, highlight=False).print(what, markup=False, soft_wrap=True)


def _fail(sentence: str) -> int:
    _say_aside(f"jaxosc: {sentence}")
    return EXIT_USAGE


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning is one line for a person; where in the source it arose is not theirs to know."""
    _say_aside(f"jaxosc: warning: {message}")
