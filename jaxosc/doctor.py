"""What `jaxosc doctor` tells: the machine as JAX sees it, versions, and whether products run at full precision."""

import dataclasses
import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from . import native

PACKAGES = ("jax", "jaxlib", "equinox", "diffrax", "optimistix", "lineax", "numpy", "xarray", "zarr", "dask")

_SIZE = 256
_ROUNDING = 16
"""A dot product of length n rounds like sqrt(n) = 16 single roundings when these are random."""


@dataclasses.dataclass(frozen=True)
class Precision:
    """Measured rounding of a float32 product of two 256 x 256 standard normal matrices on the default device.

    **Attributes:** `highest`, `default`: largest error over the largest entry, at `precision="highest"` (what jaxosc
    asks for everywhere) and at JAX's default (information: accelerators may round inputs to 10 or 8 bits).
    """

    highest: float
    default: float

    @property
    def full(self) -> bool:
        """Whether products that ask for it keep float32's 24 bits."""
        return self.highest <= _ROUNDING * float(np.finfo(np.float32).eps)


def measure_precision() -> Precision:
    """Multiply on the default device and compare with the product in float64 on the host."""
    left, right = np.random.default_rng(0).standard_normal((2, _SIZE, _SIZE)).astype(np.float32)
    exact = left.astype(np.float64) @ right.astype(np.float64)

    def error(precision: str | None) -> float:
        product = np.asarray(jnp.dot(left, right, precision=precision), np.float64)
        return float(np.abs(product - exact).max() / np.abs(exact).max())

    return Precision(highest=error("highest"), default=error(None))


def examine(folder: Path, cache: Path | None) -> tuple[Table, list[str]]:
    """A table of facts, and one sentence of advice for each thing that is wrong (none when all is well).

    **Arguments:** `folder`, whose disk is looked at; `cache`, where compiled programs are kept, None for nowhere.
    """
    precision = measure_precision()
    table = Table(title="jaxosc doctor", title_justify="left", show_header=False, min_width=60)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, fact in (*_machine(), *_jax_facts(precision), *_storage(folder, cache), *_versions()):
        table.add_row(name, fact)
    return table, _advice(precision)


def _machine() -> list[tuple[str, str]]:
    threads = {name: os.environ[name] for name in ("XLA_FLAGS", "OMP_NUM_THREADS") if name in os.environ}
    settings = "".join(f", {name}={value}" for name, value in threads.items())
    return [
        ("machine", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"),
        ("threads", f"{usable_cores()} of {os.cpu_count()} cores may be used{settings}"),
    ]


def _jax_facts(precision: Precision) -> list[tuple[str, str]]:
    devices = jax.devices()
    kinds = sorted({device.device_kind for device in devices})
    wide = jax.config.values["jax_enable_x64"]
    verdict = "full float32" if precision.full else "REDUCED"
    errors = f"error {precision.highest:.1e} as jaxosc runs them, {precision.default:.1e} by default"
    return [
        ("devices", f"{len(devices)} x {', '.join(kinds)} (backend {jax.default_backend()})"),
        ("float64", "on" if wide else "off by default; sweep takes --x64"),
        ("products", f"{verdict}: {errors}"),
    ]


def _storage(folder: Path, cache: Path | None) -> list[tuple[str, str]]:
    disk = shutil.disk_usage(folder)
    kept = "nowhere, so every run compiles again"
    if cache is not None:
        files = [path for path in cache.glob("**/*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        kept = f"{cache} ({len(files)} files, {size / 1e6:.1f} MB; may be deleted)"
    return [
        ("free disk", f"{disk.free / 1e9:.1f} GB at {folder.absolute()}"),
        ("compiled programs", kept),
        ("time loops", _time_loops()),
    ]


def _time_loops() -> str:
    """Who compiles them, and where those in C are kept."""
    command = native.compiler()
    if command is None:
        return "JAX's own: neither gcc nor clang is on the PATH; with one of them many run 1.5 to 5 times as fast"
    if not native.loops_are_native():
        return f"JAX's own: nobody asked for those in C (jo.configure_cpu), or {native.ASKED}=0 forbids them"
    folder, tiles = native.folder(), ", float32 products on the tile unit" if native.tiles_may_be_used() else ""
    return f"in C where it can be, by {command}{tiles}; {len(list(folder.glob('*.so')))} in {folder} (may be deleted)"


def _versions() -> list[tuple[str, str]]:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    return [("versions", ", ".join(found))]


def _advice(precision: Precision) -> list[str]:
    advice = []
    if not precision.full:
        advice.append(
            f"Got products with a relative error of {precision.highest:.1e} at precision='highest', expected at most"
            f" {_ROUNDING * float(np.finfo(np.float32).eps):.1e}: energies will drift; run on another device, or look"
            " for XLA_FLAGS that trade precision for speed."
        )
    if jax.default_backend() == "cpu" and shutil.which("nvidia-smi"):
        advice.append(
            "Got an NVIDIA driver, but JAX uses the CPU only, expected it to use the GPU: "
            'python -m pip install "jaxosc[cuda12]".'
        )
    return advice


def usable_cores() -> int:
    """Cores that this process may run on; a shared machine may lend fewer than it has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
