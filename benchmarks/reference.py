"""The C reference (`reference.c`), compiled on the spot for a size and a type, and called through ctypes."""

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxosc import native
from jaxosc.native.build import type_definitions

SOURCE = Path(__file__).with_name("reference.c")

NATIVE = Path(native.__file__).parent
"""Where vectors and tanh are; the loops of the reference are its own."""

FLAGS = ("-O3", "-march=native", "-mprefer-vector-width=512", "-ffp-contract=fast", "-shared", "-fPIC", f"-I{NATIVE}")

C_TYPES = {"float32": ctypes.c_float, "float64": ctypes.c_double}


def compiler() -> str | None:
    """The C compiler of this machine, if there is one."""
    return shutil.which("gcc") or shutil.which("cc")


@functools.cache
def library(n: int, dtype: str) -> ctypes.CDLL:
    """The reference for n neurons, built in a folder that lasts as long as the process needs it."""
    real, found = C_TYPES[dtype], compiler()
    assert found is not None
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "reference.so"
        command = [found, *FLAGS, *type_definitions(dtype), f"-DN={n}", str(SOURCE), "-o", str(target)]
        subprocess.run(command, check=True)
        loaded = ctypes.CDLL(str(target))
    array = np.ctypeslib.ndpointer(dtype, flags="C_CONTIGUOUS")
    for function in (loaded.euler_shared, loaded.euler_own):
        function.argtypes = [array, array, array, ctypes.c_long, ctypes.c_long, real]
        function.restype = None
    loaded.tanh_turns.argtypes, loaded.tanh_turns.restype = [real, ctypes.c_long], real
    loaded.fma_turns.argtypes, loaded.fma_turns.restype = [real, real, ctypes.c_long], real
    return loaded


def euler(matrix: np.ndarray, starts: np.ndarray, dt: float, num_steps: int) -> np.ndarray:
    """Final states (members, n) of W (n, n) shared by all, or (members, n, n)."""
    members, n = starts.shape
    loaded = library(n, starts.dtype.name)
    run: Any = loaded.euler_shared if matrix.ndim == 2 else loaded.euler_own
    states = np.empty_like(starts)
    run(matrix, starts, states, members, num_steps, dt)
    return states
