"""Amounts of memory and disk: what the machine has, and how a person writes and reads them."""

import os
import re
from pathlib import Path

from .._errors import JaxoscError

_UNITS = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 2**10, "mib": 2**20, "gib": 2**30}

_SHARE = 4
"""The default bound is this part of the machine's memory: the rest is for JAX's own temporaries and other people."""

_UNKNOWN_MEMORY = 8 * 2**30
"""Taken for a machine that does not tell, which is Windows without a further package."""


def memory_bound() -> int:
    """The default bound in bytes: a quarter of the memory that this process may use."""
    if not hasattr(os, "sysconf"):
        return _UNKNOWN_MEMORY // _SHARE
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")  # a container's own limit, on Linux
    if limit.is_file() and limit.read_text().strip().isdigit():
        total = min(total, int(limit.read_text()))
    return total // _SHARE


def amount(name: str, given: int | float | str) -> int:
    """Bytes from a number or a text such as "2 GB" or "500 MiB". **Raises:** `JaxoscError`."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][0-9]+)?)\s*([kKmMgGtT]?[iI]?[bB]?)\s*", str(given))
    factor = _UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None or float(match[1]) * factor < 1:
        raise JaxoscError(f'Got {name} = {given!r}, expected bytes, or a text such as "2 GB": correct {name}.')
    return int(float(match[1]) * factor)


def readable(size: float) -> str:
    """Bytes as a person reads them, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
