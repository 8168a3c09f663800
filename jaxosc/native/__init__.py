"""Time loops in C, compiled for the case at hand where the machine has a C compiler and `jo.configure_cpu` asked.

The same steps, measures and rules as the engine in JAX, which they are tested against and which runs wherever there is
no loop in C for a case. XLA calls them as parts of its programs (`jax.ffi`).
"""

from .build import (
    ASKED as ASKED,
    C_TYPES as C_TYPES,
    Activation as Activation,
    Case as Case,
    compiler as compiler,
    folder as folder,
    loops_are_native as loops_are_native,
    target_of as target_of,
    tiles_may_be_used as tiles_may_be_used,
)
