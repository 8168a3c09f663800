"""A second process with XLA flags of its own, whose jobs are timed in turn with those of the first.

XLA reads its flags once, and some that make our programs faster make the peers' slower: each side gets what suits it.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import jaxosc as jo

from .harness import timed

_made: dict[str, Callable[[], Any]] = {}


def start(devices: int | None = None) -> concurrent.futures.ProcessPoolExecutor:
    """The process, on the same core; it ends with the `with` block that the caller opens. `devices`, of its CPU."""
    context = multiprocessing.get_context("spawn")
    return concurrent.futures.ProcessPoolExecutor(1, context, jo.configure_cpu, (devices,))


@dataclasses.dataclass(frozen=True)
class ApartJob:
    """As `harness.Job`, in the other process; `make()` gives the function to time, once for each `key`."""

    process: concurrent.futures.ProcessPoolExecutor
    key: str
    make: Callable[[], Callable[[], Any]]

    def first(self) -> float:
        """Wall seconds of the first call."""
        return self.process.submit(_first, self.key, self.make).result()

    def timed(self, repeats: int) -> tuple[Any, float, float]:
        """The result of the last call, and CPU and wall seconds per call, as that process sees them."""
        return self.process.submit(_timed, self.key, repeats).result()

    def forget(self) -> None:
        """Give its memory back."""
        self.process.submit(_made.clear).result()


def _first(key: str, make: Callable[[], Callable[[], Any]]) -> float:
    _made[key] = make()
    begin = time.perf_counter()
    jax.block_until_ready(_made[key]())
    return time.perf_counter() - begin


def _timed(key: str, repeats: int) -> tuple[Any, float, float]:
    result, cpu, wall = timed(_made[key], repeats)
    return jax.tree.map(np.asarray, result), cpu, wall


def flags_apart(process: concurrent.futures.ProcessPoolExecutor) -> str:
    """The flags that hold there."""
    return process.submit(os.getenv, "XLA_FLAGS", "").result()
