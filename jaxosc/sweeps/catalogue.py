"""The one table of names: what "tanh", "tsit5" or "dense_skew" means in a sweep spec and on the command line.

Inside the library there are objects and no names. A spec may also point to an object of the user's own, as
"path/to/file.py:attribute" or "package.module:attribute", or hold the object itself when it is written in Python.
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any

import diffrax

from .. import activations, weights
from .._errors import JaxoscError
from ..activations import AbstractActivation, Elementwise
from ..solvers import DiscreteGradient, EnergyProjection, ForwardEuler, PairSplitting, PoissonSplitting, Taylor
from ..weights import AbstractWeight
from .fingerprint import fingerprint, load_reference

ACTIVATIONS: Mapping[str, Callable[[], AbstractActivation]] = {
    "identity": activations.Identity,
    "tanh": activations.Tanh,
    "arctan": activations.Arctan,
    "erf": activations.Erf,
    "softsign": activations.Softsign,
    "algebraic": activations.Algebraic,
    "hard_tanh": activations.HardTanh,
    "relu": activations.ReLU,
    "rectified_tanh": activations.RectifiedTanh,
    "sigmoid": activations.Sigmoid,
    "elu": activations.ELU,
}

SOLVERS: Mapping[str, Callable[[], diffrax.AbstractSolver]] = {
    "euler": ForwardEuler,
    "heun": diffrax.Heun,
    "midpoint": diffrax.Midpoint,
    "ralston": diffrax.Ralston,
    "bosh3": diffrax.Bosh3,
    "tsit5": diffrax.Tsit5,
    "dopri5": diffrax.Dopri5,
    "dopri8": diffrax.Dopri8,
    "poisson_splitting": lambda: PoissonSplitting(2),
    "poisson_splitting_1": lambda: PoissonSplitting(1),
    "poisson_splitting_4": lambda: PoissonSplitting(4),
    "poisson_splitting_6": lambda: PoissonSplitting(6),
    "poisson_splitting_8": lambda: PoissonSplitting(8),
    "pair_splitting": PairSplitting,
    "discrete_gradient": DiscreteGradient,
    "energy_projection": EnergyProjection,
    "taylor": Taylor,
}

WEIGHT_LAWS: Mapping[str, Callable[[], type[AbstractWeight]]] = {
    "dense_skew": lambda: weights.DenseSkew,
    "rotation_blocks": lambda: weights.RotationBlocks,
    "circulant": lambda: weights.Circulant,
    "banded_skew": lambda: weights.BandedSkew,
    "sparse_skew": lambda: weights.SparseSkew,
    "low_rank_skew": lambda: weights.LowRankSkew,
    "bipartite": lambda: weights.Bipartite,
    "symmetrizable": lambda: weights.Symmetrizable,
    "unconstrained": lambda: weights.Unconstrained,
}


@dataclasses.dataclass(frozen=True)
class Choice:
    """One entry of a named axis.

    **Attributes:** `label`, the coordinate value; `value`, the activation, solver or weight class; `reference`, the
    name or "file.py:attribute" it came from (None for a Python object); `fingerprint`, a hash of the source text of
    what is not ours ("" for names of this table).
    """

    label: str
    value: Any
    reference: str | None
    fingerprint: str = ""


@dataclasses.dataclass(frozen=True)
class Kind:
    """What can stand on one named axis: the table of names, and how an object of the user's becomes an entry."""

    axis: str
    known: Mapping[str, Callable[[], Any]]
    adopt: Callable[[Any], Any]
    wanted: str

    def choice(self, entry: Any, label: str | None = None) -> Choice:
        """The choice that a name, a reference, or an object stands for.

        **Raises:** `JaxoscError` for an unknown name (it lists the known ones) and for objects of another kind.
        """
        if isinstance(entry, Choice):
            return entry
        if isinstance(entry, str) and ":" not in entry:
            if entry not in self.known:
                raise JaxoscError(self._unknown(entry))
            return Choice(label or entry, self.known[entry](), entry)
        if isinstance(entry, str):
            loaded = load_reference(entry)
            value = self._adopted(loaded.value, entry)
            return Choice(label or loaded.attribute, value, loaded.reference, loaded.fingerprint)
        return Choice(label or _name_of(entry), self._adopted(entry, repr(entry)), None, fingerprint(entry))

    def _adopted(self, entry: Any, shown: str) -> Any:
        value = self.adopt(entry)
        if value is None:
            raise JaxoscError(f"Got {self.axis} {shown}, expected {self.wanted}: pass one of those.")
        return value

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else 'name one of these, or "file.py:object" for your own.'
        return f"Got the unknown {self.axis} {name!r}, expected one of {', '.join(self.known)}: {hint}"


def _adopt_activation(entry: Any) -> AbstractActivation | None:
    if isinstance(entry, AbstractActivation):
        return entry
    if isinstance(entry, type):
        return entry() if issubclass(entry, AbstractActivation) else None
    return Elementwise(entry) if callable(entry) else None


def _adopt_solver(entry: Any) -> diffrax.AbstractSolver | None:
    made = entry() if isinstance(entry, type) and issubclass(entry, diffrax.AbstractSolver) else entry
    return made if isinstance(made, diffrax.AbstractSolver) else None


def _adopt_weight_law(entry: Any) -> type[AbstractWeight] | None:
    return entry if isinstance(entry, type) and issubclass(entry, AbstractWeight) else None


def _name_of(entry: Any) -> str:
    name = getattr(entry, "__name__", type(entry).__name__)
    return name.strip("<>")


ACTIVATION = Kind(
    "activation", ACTIVATIONS, _adopt_activation, "an activation such as jo.Tanh(), or a function of one number"
)
SOLVER = Kind("solver", SOLVERS, _adopt_solver, "a Diffrax solver such as diffrax.Tsit5()")
WEIGHT_LAW = Kind("weight_law", WEIGHT_LAWS, _adopt_weight_law, "a weight class such as jo.weights.DenseSkew")
KINDS: Mapping[str, Kind] = {kind.axis: kind for kind in (ACTIVATION, SOLVER, WEIGHT_LAW)}


def choices(kind: Kind, entries: Any) -> tuple[Choice, ...]:
    """The choices of one axis, from one entry or a list; a mapping gives labels: `{"mine": entry}`.

    **Raises:** `JaxoscError` for an empty list, for two entries of one label, and as `Kind.choice`.
    """
    listed = list(entries) if isinstance(entries, list | tuple) else [entries]
    made: list[Choice] = []
    for entry in listed:
        labelled = entry.items() if isinstance(entry, Mapping) else [(None, entry)]
        made += [kind.choice(value, label) for label, value in labelled]
    if not made:
        raise JaxoscError(f"Got an empty list for {kind.axis}, expected one of {', '.join(kind.known)}: name one.")
    labels = [choice.label for choice in made]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise JaxoscError(
            f"Got {kind.axis} {twice[0]!r} twice, expected different labels: drop one, or give labels as"
            ' {"first": ..., "second": ...}.'
        )
    return tuple(made)
