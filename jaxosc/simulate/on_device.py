"""Where many lanes run: in one kernel on a GPU or TPU, where that is known to be faster; chunk by chunk elsewhere.

The kernels are held against the CPU engine in Pallas' interpreter, compiled ahead of time for an H100 and a TPU v5e,
and were run on an H100 (`python -m benchmarks.accelerators`): as exact as the engine, and 2 to 24 times as fast where
they are used. None has run on a TPU yet. JAXOSC_KERNEL=1 in the environment has every run that fits a kernel use it,
JAXOSC_KERNEL=0 none.
"""

import importlib
import os
from typing import Any

import jax
from jaxtyping import Float

from .. import _choices
from ..solvers import Lanes
from .chunks import run_in_chunks
from .engine import LaneRun, SaveTimes
from .reducers import AbstractReducer
from .steppers import stepper_of

ASKED = "JAXOSC_KERNEL"
"""The environment's word on kernels."""


def run_lanes_on_device(
    lanes: Lanes,
    y0: Float[jax.Array, "n lanes"],
    solver: Any,
    reducers: tuple[AbstractReducer, ...],
    *,
    save: SaveTimes | None = None,
    **options: Any,
) -> LaneRun:
    """As `run_in_chunks`: in the kernel where there is one that is faster, or asked for, and fits; else in chunks.

    Not differentiable where it is the kernel. Call it inside a `jax.jit` of your own.
    """

    def in_chunks() -> LaneRun:
        return run_in_chunks(lanes, y0, solver, reducers, save=save, allow_native=True, **options)

    platform = kernel_platform(lanes.size, solver)
    if platform is None or save is not None:
        return in_chunks()
    # Pallas is loaded where it is of use, which is not on a CPU.
    from .kernels import has_kernel, run_lanes_in_kernel

    if not has_kernel(lanes, y0, solver, reducers, platform):
        return in_chunks()
    options.pop("segments", None)

    def in_kernel() -> LaneRun:
        return run_lanes_in_kernel(lanes, y0, solver, reducers, platform=platform, **options)

    # The default backend is not always where a program runs: `jax.default_device` may say otherwise.
    run: LaneRun = jax.lax.platform_dependent(default=in_chunks, **{platform: in_kernel})
    return run


def kernel_platform(n: int, solver: Any) -> str | None:
    """The kernel for n neurons on the default backend: "cuda", "tpu", or None where none is known to be faster."""
    platform, asked = kernel_of_backend(), os.environ.get(ASKED)
    if platform is None or asked == "0":
        return None
    up_to = _choices.KERNEL_UP_TO.get((platform, stepper_of(solver).use), 0)
    return platform if asked == "1" or n <= up_to else None


def kernel_of_backend() -> str | None:
    """Which kernel the default backend has, asked for or not."""
    backend = jax.default_backend()
    if backend == "gpu":
        return "cuda" if "cuda" in jax.devices()[0].client.platform_version.lower() else None
    return backend if backend == "tpu" else None


def load_kernels() -> None:
    """Load Pallas if there may be need of it. It brings settings of JAX: loaded while JAX traces a program, they have
    the next call trace and compile it again.
    """
    if kernel_of_backend() is not None and os.environ.get(ASKED) != "0":
        importlib.import_module(".kernels", __package__)
