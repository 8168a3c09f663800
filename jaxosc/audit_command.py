"""What `jaxosc audit` asks for, and how names and files become the network that is audited."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from ._errors import JaxoscError

if TYPE_CHECKING:
    from .audit import Audit
    from .fields import AbstractField

_NETWORK = Group("Network", sort_key=1)
_RUN = Group("Run", sort_key=2)

_FEWEST_NEURONS = 2


def _option(help: str, group: Group, **settings: Any) -> Any:
    return Parameter(help=help, group=group, negative="", **settings)


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class AuditOptions:
    """The network, the solver and the run of one audit."""

    activation: Annotated[str, _option('name, or "file.py:object" for your own', _NETWORK)] = "tanh"
    neurons: Annotated[int | None, _option("size of a random skew W, 4 if not given", _NETWORK, show_default=False)] = (
        None
    )
    gain: Annotated[float, _option("factor on W", _NETWORK, allow_leading_hyphen=True)] = 1.0
    leak: Annotated[float, _option("rate of -leak*y", _NETWORK, allow_leading_hyphen=True)] = 0.0
    rate_form: Annotated[bool, _option("dr/dt = sigma(W r) - leak r instead", _NETWORK)] = False
    radius: Annotated[float, _option("standard deviation of the start's entries", _NETWORK)] = 1.0
    seed: Annotated[int, _option("the random W and the start follow from it", _NETWORK)] = 0
    solver: Annotated[str, _option("euler, poisson_splitting, poisson_splitting_4, tsit5, ...", _RUN)] = (
        "poisson_splitting"
    )
    dt: Annotated[float, _option("step size", _RUN)] = 0.1
    duration: Annotated[float, _option("time span of the run; a longer one sees smaller drifts", _RUN)] = 1e4
    only: Annotated[
        list[str] | None, _option("some of energy, casimirs, volume, oddness, reversal", _RUN, show_default=False)
    ] = None
    x64: Annotated[bool, Parameter(help="float64; float32 hides small drifts", name="--x64", group=_RUN)] = True


def examine(matrix: Path | None, options: AuditOptions) -> "Audit":
    """Audit the network of the options, with the W of a file or a random skew one.

    **Raises:** `JaxoscError` for unknown names, files that hold no matrix, and as `jo.audit`.
    """
    import jax
    import jax.numpy as jnp

    from .audit import INVARIANTS, audit
    from .sweeps import catalogue

    if not (options.radius > 0 and options.radius < float("inf")):
        raise JaxoscError(f"Got --radius {options.radius:g}, expected a number > 0: it is the size of the start.")
    solver = catalogue.SOLVER.choice(options.solver).value
    only = options.only or list(INVARIANTS)
    invariants = tuple(word.strip() for entry in only for word in entry.split(",") if word.strip())
    with jax.enable_x64(options.x64):
        field = _network(matrix, options)
        key = jax.random.fold_in(jax.random.key(options.seed), 1)
        start = options.radius * jax.random.normal(key, (field.size,), jnp.result_type(float))
        return audit(field, start, solver, options.dt, options.duration, invariants=invariants)


def _network(path: Path | None, options: AuditOptions) -> "AbstractField":
    import jax
    import jax.numpy as jnp

    from .fields import CurrentRNN, RateRNN
    from .sweeps import catalogue
    from .weights import AbstractWeight, DenseSkew, Unconstrained

    activation = catalogue.ACTIVATION.choice(options.activation).value
    weight: AbstractWeight
    if path is None:
        neurons = 4 if options.neurons is None else options.neurons
        if neurons < _FEWEST_NEURONS:
            raise JaxoscError(f"Got --neurons {neurons}, expected at least {_FEWEST_NEURONS}: one neuron cannot turn.")
        weight = DenseSkew.random(jax.random.key(options.seed), neurons)
    else:
        from .sweeps.values import read_matrix

        matrix, _ = read_matrix(path)
        if options.neurons is not None and options.neurons != len(matrix):
            raise JaxoscError(
                f"Got --neurons {options.neurons} and a file with {len(matrix)}, expected one of them: drop --neurons."
            )
        try:
            weight = DenseSkew.from_matrix(jnp.asarray(matrix))
        except JaxoscError:  # not skew: audited as it is, and the report tells what that does
            weight = Unconstrained(jnp.asarray(matrix))
    form = RateRNN if options.rate_form else CurrentRNN
    return form(weight.scaled(options.gain), activation, leak=options.leak)
