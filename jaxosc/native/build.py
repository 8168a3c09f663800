"""From a case to a compiled time loop that XLA can call.

A case is a number of neurons, a type, an activation and a kind of step: with all of them known the C compiler unrolls
and vectorises as by hand. It takes half a second or so; the result is kept in the user's cache folder under a name
made of the source, the command and the processor.
"""

import ctypes
import dataclasses
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Literal

import jax

from .._cache import cache_home
from .rational_tanh import BOTTOM, MOST, TOP

ASKED = "JAXOSC_NATIVE"
"""The variable by which `jo.configure_cpu` asks for loops in C; processes begun by this one inherit it."""

SOURCES = {
    "euler": "fixed_steps.c",
    "sweep": "fixed_steps.c",
    "splitting": "fixed_steps.c",
    "taylor": "taylor_steps.c",
    "growth": "lyapunov_steps.c",
    "projected": "taylor_steps.c",
}
"""The source of each kind of step, which includes what else it needs."""

FLAGS = ("-O2", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC")

X86_FLAGS = ("-mprefer-vector-width=512",)
"""Those of one family of processors."""

Activation = Literal["tanh_of", "identity_of", "softsign_of", "hard_tanh_of"]
"""Functions of vectors.h."""

C_TYPES = {"float32": "float", "float64": "double"}


@dataclasses.dataclass(frozen=True)
class Case:
    """What a loop is compiled for.

    **Attributes:** `neurons`, `dtype`; `activation`, the name of its C function; `step`, "euler", "sweep" (a splitting
    of order 1), "splitting" (pairs of sweeps), "taylor", the same "projected" to its energy, or "growth" (a splitting
    with tangents); `own`, whether each lane has a W of its own; `order`, of a series; `tangents`, how many, and whether
    they are made `orthogonal`; `tiles`, whether products are made on the tile unit of a processor that has one;
    `hollow`, whether Euler leaves the diagonal of W out, which is zero.
    """

    neurons: int
    dtype: str
    activation: Activation
    step: Literal["euler", "sweep", "splitting", "taylor", "growth", "projected"]
    own: bool
    order: int = 0
    tangents: int = 0
    orthogonal: bool = True
    tiles: bool = False
    hollow: bool = False

    @property
    def by_neuron(self) -> bool:
        """Whether vectors go along the neurons of a lane, and W is wanted as (lanes, n, n) and not (n, n, lanes)."""
        return self.own and self.step == "euler" and self.neurons > 16

    @property
    def definitions(self) -> list[str]:
        """For the compiler."""
        tangents = [f"-DTANGENTS={self.tangents}", f"-DORTHOGONAL={int(self.orthogonal)}"] if self.tangents else []
        return [
            f"-DN={self.neurons}",
            *type_definitions(self.dtype),
            f"-DACTIVATION={self.activation}",
            f"-DSPLITTING={tuple(SOURCES).index(self.step)}",
            f"-DORDER={self.order}",
            f"-DPROJECTED={int(self.step == 'projected')}",
            f"-DOWN={int(self.own)}",
            *([] if tangents else [f"-DBY_NEURON={int(self.by_neuron)}", f"-DTILES={int(self.tiles)}"]),
            f"-DHOLLOW={int(self.hollow)}",
            *tangents,
            "-DHANDLER=jaxosc_loop",
        ]


def type_definitions(dtype: str) -> list[str]:
    """The name of a type and the numbers of its tanh, for vectors.h."""
    numbers = {"TOP": TOP[dtype], "BOTTOM": BOTTOM[dtype], "MOST": (MOST[dtype],)}
    return [
        f"-DREAL={C_TYPES[dtype]}",
        *(f"-DTANH_{name}={','.join(map(repr, values))}" for name, values in numbers.items()),
    ]


def compiler() -> str | None:
    """The C compiler of this machine, if there is one that knows GCC's vectors."""
    return shutil.which("gcc") or shutil.which("clang")


def loops_are_native() -> bool:
    """Whether loops in C were asked for and can be had."""
    return os.environ.get(ASKED) == "1" and compiler() is not None


@functools.cache
def tiles_may_be_used() -> bool:
    """Whether this processor has a tile unit for bfloat16 (Intel's AMX), and Linux lets this process use it."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or "amx_bf16" not in _processor():
        return False
    # The states of tiles are large, so Linux wants to be asked before (arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA).
    return ctypes.CDLL(None).syscall(158, 0x1023, 18) == 0


@functools.cache
def target_of(case: Case) -> str | None:
    """The name under which XLA calls the loop of a case, compiled now if need be; None and a warning if that fails."""
    if case.tiles and not tiles_may_be_used():
        return target_of(dataclasses.replace(case, tiles=False))
    command = compiler()
    if command is None:
        return None
    flags = (*FLAGS, *X86_FLAGS) if platform.machine() in ("x86_64", "AMD64") else FLAGS
    words = [command, *flags, *case.definitions, f"-I{jax.ffi.include_dir()}"]
    name = _fingerprint(words)
    path = folder() / f"{name}.so"
    try:
        if not path.exists():
            _compile([*words, str(Path(__file__).with_name(SOURCES[case.step]))], path)
        handler = ctypes.CDLL(str(path)).jaxosc_loop
    except (OSError, AttributeError, subprocess.CalledProcessError) as error:
        reason = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
        # Once is enough: what fails for one case fails for all.
        os.environ[ASKED] = "0"
        warnings.warn(
            f"Got no loop in C for {case} ({str(reason).strip()[:500]}), so JAX's own run instead, slower: see that"
            f" `{command}` works and that {path.parent} can be written.",
            stacklevel=2,
        )
        return None
    target = f"jaxosc_{name}"
    jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(handler), platform="cpu")
    return target


def _fingerprint(words: list[str]) -> str:
    """What the compiled loop depends on, in short."""
    digest = hashlib.sha256("\0".join([*words, _processor(), jax.__version__]).encode())
    for source in sorted(Path(__file__).parent.glob("*.[ch]")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:24]


@functools.cache
def _processor() -> str:
    """The processor's abilities: folders are shared between machines that do not have the same."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    facts = ("model name", "flags", "CPU part", "Features")
    return "\n".join(sorted({line for line in lines if line.startswith(facts)}))


def folder() -> Path:
    """Where loops are kept; one that lasts as long as the process if the user's cannot be written."""
    shared = cache_home() / "jaxosc" / "native"
    try:
        shared.mkdir(parents=True, exist_ok=True)
    except OSError:
        return _own_folder()
    return shared if os.access(shared, os.W_OK) else _own_folder()


@functools.cache
def _own_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="jaxosc-native-"))


def _compile(words: list[str], path: Path) -> None:
    """Compile under another name and rename: two processes may do this at once."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        made = Path(scratch) / path.name
        subprocess.run([*words, "-o", str(made)], check=True, capture_output=True, text=True, start_new_session=True)
        os.replace(made, path)
