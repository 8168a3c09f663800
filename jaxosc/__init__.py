"""jaxosc: simulate, judge, tune and train recurrent networks that oscillate for ever.

    import jax, jaxosc as jo

    weight = jo.weights.DenseSkew.random(jax.random.key(0), 8)
    solution = jo.simulate(jo.CurrentRNN(weight), 0.5 * jax.numpy.ones(8), t1=1000.0, dt=0.1)

Importing changes no JAX setting and loads no plotting or storage library; `jo.orbits`, `jo.tuning`, `jo.sweeps`,
`jo.plotting` and `jo.report` are loaded at first use.
"""

import importlib
from typing import Any

from . import oracles as oracles, solvers as solvers, weights as weights
from ._cpu import configure_cpu as configure_cpu
from ._errors import JaxoscError as JaxoscError
from ._results import Result as Result
from .activation_check import check_activation as check_activation
from .activations import (
    ELU as ELU,
    AbstractActivation as AbstractActivation,
    Algebraic as Algebraic,
    Arctan as Arctan,
    Elementwise as Elementwise,
    Erf as Erf,
    HardTanh as HardTanh,
    Identity as Identity,
    RectifiedTanh as RectifiedTanh,
    ReLU as ReLU,
    Sigmoid as Sigmoid,
    Softsign as Softsign,
    Tanh as Tanh,
)
from .audit import Audit as Audit, Finding as Finding, audit as audit
from .fields import (
    AbstractField as AbstractField,
    CurrentRNN as CurrentRNN,
    RateRNN as RateRNN,
    casimir_vectors as casimir_vectors,
)
from .saved import load as load, save as save
from .simulate import (
    AbstractReducer as AbstractReducer,
    Checkpointed as Checkpointed,
    Crossings as Crossings,
    EnergyDrift as EnergyDrift,
    Norms as Norms,
    Reversible as Reversible,
    Solution as Solution,
    simulate as simulate,
)
from .solvers import ForwardEuler as ForwardEuler, euler_loop as euler_loop
from .structure import Structure as Structure, structure as structure

__version__ = "0.1.0"

_LAZY = ("orbits", "tuning", "sweeps", "plotting", "report")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
