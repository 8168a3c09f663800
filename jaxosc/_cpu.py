"""Settings that make the time loops faster on a CPU, for whoever calls `jo.configure_cpu()`.

- The loops of `jaxosc.native`, in C, where a machine has a C compiler: Euler, Poisson splitting and adaptive
  Taylor series of tanh networks.
- XLA runs a loop one operation after the other, each a call of its own, unless its arrays are tiny. Small networks
  spend half of their time between the operations. With a higher threshold a whole loop becomes one kernel, compiled in
  half the time; wider vectors fill what AVX-512 has, from JAX 0.12 on: before, XLA's arctan was wrong in them (in
  jaxlib 0.10.2 by up to 1.9). Measured on one core (AVX-512) over the same without both, float32 and float64, n = 2 to
  32: Euler 1.0 to 1.4 times as fast, `PoissonSplitting(2)` 1.1 to 1.6, Taylor 1.1 to 2.4.

All are read once, XLA's when JAX makes its backend, so a library must not set them behind anybody's back.
"""

import os

import jax

from ._errors import JaxoscError
from .native.build import ASKED

LOOP_BYTES = 16_000_000
"""Loops whose arrays are smaller become one kernel: any chunk of the engine is, whole trajectories are not."""

_EXTRA = "--xla_backend_extra_options="
_LOOPS = "xla_cpu_small_while_loop_byte_threshold"
_VECTORS = "--xla_cpu_prefer_vector_width"

_WIDE_SINCE = (0, 12)
"""The first JAX whose arctan was seen to be right in vectors of 512 bits."""


def configure_cpu(devices: int | None = None) -> None:
    """Have JAX compile for speed on this CPU. Call it once, right after the imports, before JAX computes anything.

    The command line and the benchmarks do. Where there is a C compiler (gcc or clang), it compiles the time loops that
    `jaxosc.native` knows, each in half a second or so, and they are kept in the user's cache folder; without one, or
    with JAXOSC_NATIVE=0 in the environment, JAX's own run. Results agree with those of other settings to rounding, and
    are bit-equal among runs with the same settings. GPUs and TPUs are not concerned. What `XLA_FLAGS` already says
    about a setting stays.

    **Arguments:** `devices`: into how many devices JAX divides the CPU, e.g. the number of cores: `jo.simulate` spreads
    its members over them. None leaves it at what it is (one).

    **Raises:** `JaxoscError` if JAX has already computed something, as it has then read its settings.
    """
    if devices is not None and devices < 1:
        raise JaxoscError(f"Got configure_cpu(devices={devices!r}), expected a whole number >= 1: the cores to use.")
    before = jax.config.values["jax_num_cpu_devices"]
    try:
        # Nothing public says whether a backend exists, but this setting refuses to change once one does.
        jax.config.update("jax_num_cpu_devices", before + 2)
        jax.config.update("jax_num_cpu_devices", before if devices is None else devices)
    except RuntimeError:
        raise JaxoscError(
            "Got configure_cpu() after JAX has computed something, expected it before, since JAX reads these settings"
            " once: call it right after the imports (in a notebook: restart the kernel first)."
        ) from None
    os.environ.update(settings())


def settings() -> dict[str, str]:
    """The environment of a process whose JAX compiles for speed, from that of this one: what is said there stays."""
    flags, native = os.environ.get("XLA_FLAGS", ""), os.environ.get(ASKED, "1")
    return {"XLA_FLAGS": with_settings(flags), ASKED: native}


def loops_are_kernels() -> bool:
    """Whether JAX was told, by `configure_cpu` or by hand, to make kernels of loops."""
    return _LOOPS in os.environ.get("XLA_FLAGS", "")


def with_settings(flags: str) -> str:
    """The flags with what suits this JAX; a second `xla_backend_extra_options` would replace the first one."""
    words = flags.split()
    if jax.__version_info__ >= _WIDE_SINCE and not any(word.startswith(_VECTORS) for word in words):
        words.append(f"{_VECTORS}=512")
    if _LOOPS in flags:
        return " ".join(words)
    setting = f"{_LOOPS}={LOOP_BYTES}"
    for number, word in enumerate(words):
        if word.startswith(_EXTRA):
            words[number] = f"{word},{setting}"
            return " ".join(words)
    return " ".join([*words, f"{_EXTRA}{setting}"])
