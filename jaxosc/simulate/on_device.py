"""Where many lanes run: in one kernel on a GPU or TPU whose user asks for it, chunk by chunk elsewhere.

The kernels are held against the CPU engine in Pallas' interpreter, and compiled ahead of time for an H100 and a TPU
v5e. None has run on such a machine yet. Until one has, they are used where the environment says JAXOSC_KERNEL=1.
"""

import os
from typing import Any

import jax
from jaxtyping import Float

from ..solvers import Lanes
from .chunks import run_in_chunks
from .engine import LaneRun, SaveTimes
from .reducers import AbstractReducer


def run_lanes_on_device(
    lanes: Lanes,
    y0: Float[jax.Array, "n lanes"],
    solver: Any,
    reducers: tuple[AbstractReducer, ...],
    *,
    save: SaveTimes | None = None,
    **options: Any,
) -> LaneRun:
    """As `run_in_chunks`: in the kernel where it is asked for, the backend has one and the run fits it; else in chunks.

    Not differentiable where it is the kernel. Call it inside a `jax.jit` of your own.
    """

    def in_chunks() -> LaneRun:
        return run_in_chunks(lanes, y0, solver, reducers, save=save, allow_native=True, **options)

    platform = kernel_platform()
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


def kernel_platform() -> str | None:
    """The kernel for the default backend: "cuda", "tpu", or None where there is none or nobody asked for it."""
    if os.environ.get("JAXOSC_KERNEL") != "1":
        return None
    backend = jax.default_backend()
    if backend == "gpu":
        return "cuda" if "cuda" in jax.devices()[0].client.platform_version.lower() else None
    return backend if backend == "tpu" else None
