"""What the settings of a sweep must agree on; each disagreement is one sentence, before any work starts."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import JaxoscError
from ..weights import DenseSkew
from .networks import Place, build_network

if TYPE_CHECKING:
    from .spec import Sweep

MOST_STEPS = 2**31 - 1
"""Steps are counted in int32."""

_FAR = 1e6
"""Where a potential is asked whether it reached the wanted energy: at escape's default distance."""


def check_spec(sweep: "Sweep") -> None:
    """Raise `JaxoscError` for settings that exclude each other, and for laws and axes that fail on a network."""
    _check_steps(sweep)
    _check_weight_file(sweep)
    # The precision of the run, in this thread only: float64 must be looked at as float64.
    with jax.enable_x64(sweep.dtype == "float64"):
        _check_laws(sweep)
        _check_axes(sweep)
        _check_energy_starts(sweep)


def _check_steps(sweep: "Sweep") -> None:
    largest, smallest = max(sweep.dt), min(sweep.dt)
    if largest > sweep.duration:
        raise JaxoscError(
            f"Got dt = {largest:g} and duration = {sweep.duration:g}, expected dt <= duration: take a smaller dt or a"
            " longer duration."
        )
    steps = sweep.duration / smallest
    if steps > MOST_STEPS:
        raise JaxoscError(
            f"Got {steps:.3g} steps of dt = {smallest:g}, expected at most {MOST_STEPS}: take a larger dt."
        )
    if not sweep.measures:
        raise JaxoscError("Got no measures, expected some of energy, norms, period, chaos: name one.")


def _check_weight_file(sweep: "Sweep") -> None:
    if sweep.matrix is None:
        for name in ("weight_part", "normalise"):
            if getattr(sweep, name) is not None:
                raise JaxoscError(f"Got {name} without weight_file, expected both or neither: name the file.")
        return
    if sweep.weight_law is not None:
        raise JaxoscError("Got weight_law and weight_file, expected one of them: W is either drawn or read.")
    if sweep.neurons != (len(sweep.matrix),):
        raise JaxoscError(
            f"Got neurons = {list(sweep.neurons)} with a weight file of n = {len(sweep.matrix)}, expected its size:"
            " drop neurons."
        )
    if sweep.draws > 1 and sweep.asymmetry is None:
        raise JaxoscError(
            f"Got draws = {sweep.draws} with a weight file, expected 1, since nothing about W is random: drop draws, or"
            " declare asymmetry."
        )


def _check_laws(sweep: "Sweep") -> None:
    if sweep.matrix is not None:
        return
    for law in sweep.laws:
        for n in sweep.neurons:
            # Shapes only: the law's own complaint about n (an even one, say) comes out here.
            jax.eval_shape(lambda law=law, n=n: law.value.random(jax.random.key(0), n, dtype=np.dtype(sweep.dtype)))


def _check_axes(sweep: "Sweep") -> None:
    if not sweep.axes:
        return
    activation = sweep.activation[0].value

    def build(n: int) -> None:
        value = jnp.ones((), sweep.dtype)
        weight = DenseSkew(jnp.ones((n * (n - 1) // 2,), sweep.dtype))
        build_network(weight, None, activation, sweep.axes, Place(gain=value, custom=(value,) * len(sweep.axes)))

    for n in sweep.neurons:
        jax.eval_shape(lambda n=n: build(n))


def _check_energy_starts(sweep: "Sweep") -> None:
    if sweep.ic.energy is None:
        return
    # A state that has it in one neuron alone is the hardest to reach.
    level = max(sweep.ic.level(n, float(np.max(sweep.ic.energy))) for n in sweep.neurons)
    if sweep.axes:
        raise JaxoscError(
            f'Got ic.law = "{sweep.ic.law}" with axes of your own, whose energy may have no such level in every'
            ' direction, expected another law: take "sphere".'
        )
    for choice in sweep.activation:
        reached = float(jnp.min(choice.value.potential(jnp.array([-_FAR, _FAR], sweep.dtype))))
        if not reached >= level:
            raise JaxoscError(
                f"Got an energy of {level:g} for a start with the activation {choice.label!r}, whose potential reaches"
                f" only {reached:.3g} on one side, so that not every direction has such a start: take another ic.law."
            )
