"""One walk over everything public: documented, named once, picklable, and with the interface of its kind."""

import importlib
import inspect
import pickle
import types

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from test_energy_projection import SOLVERS as PROJECTION_ROWS
from test_pair_splitting import SOLVERS as PAIR_ROWS
from test_solvers import SOLVERS as SOLVER_ROWS
from test_taylor import SOLVERS as TAYLOR_ROWS

import jaxosc as jo

ROOMS = (
    "",
    "weights",
    "solvers",
    "oracles",
    "simulate",
    "audit",
    "structure",
    "orbits",
    "sweeps",
    "plotting",
    "report",
)


def public(room):
    """Name -> object of a room, without modules and private names."""
    module = importlib.import_module(f"jaxosc.{room}" if room else "jaxosc")
    names = [name for name in vars(module) if not name.startswith("_")]
    found = {name: getattr(module, name) for name in names}
    return {name: thing for name, thing in found.items() if not isinstance(thing, types.ModuleType)}


def final_classes(room, base):
    """The concrete classes of a kind that a room offers."""
    classes = [thing for thing in public(room).values() if inspect.isclass(thing) and issubclass(thing, base)]
    return [cls for cls in classes if not inspect.isabstract(cls) and not cls.__name__.startswith("Abstract")]


EVERYTHING = [(room, name) for room in ROOMS for name in public(room)]
ACTIVATIONS = final_classes("", jo.AbstractActivation)
WEIGHTS = final_classes("weights", jo.weights.AbstractWeight)
SOLVERS = final_classes("solvers", diffrax.AbstractSolver)
REDUCERS = final_classes("simulate", jo.AbstractReducer)


def softer(y):
    """A function of one's own, at module level where pickle finds it."""
    return y / (1 + jnp.abs(y))


def activation(cls):
    """One instance."""
    return cls(softer) if cls is jo.Elementwise else cls()


@pytest.mark.parametrize(("room", "name"), EVERYTHING)
def test_public_things_are_documented(room, name):
    thing = public(room)[name]
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return  # tables of names and constants
    documentation = thing.__doc__ if inspect.isclass(thing) else inspect.getdoc(thing)
    assert documentation, f"jaxosc.{room}.{name} has no docstring"
    # Dataclasses write their signature where a docstring is missing.
    assert not documentation.startswith(f"{name}(")
    if inspect.isclass(thing) and thing.__module__.startswith("jaxosc"):
        for method, value in vars(thing).items():
            if not method.startswith("_") and inspect.isroutine(value):
                assert inspect.getdoc(getattr(thing, method)), f"jaxosc.{room}.{name}.{method} has no docstring"


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_has_two_names(room):
    names = {}
    for name, thing in public(room).items():
        if inspect.isclass(thing) or inspect.isroutine(thing):
            names.setdefault(id(thing), []).append(name)
    assert [same for same in names.values() if len(same) > 1] == []


def test_a_name_means_the_same_in_every_room():
    for room in ROOMS[1:]:
        for name, thing in public(room).items():
            same_word = (room, name) == ("sweeps", "load")  # of datasets; networks and results are jo.load's
            assert same_word or public("").get(name, thing) is thing, name


def test_kinds_are_complete():
    """The names that are fixed for everybody who builds on the package."""
    activations = "Identity Tanh Arctan Erf Softsign Algebraic HardTanh ReLU RectifiedTanh Sigmoid ELU Elementwise"
    weights = (
        "DenseSkew RotationBlocks Circulant BandedSkew SparseSkew LowRankSkew Bipartite Symmetrizable Unconstrained"
    )
    assert {cls.__name__ for cls in ACTIVATIONS} == set(activations.split())
    assert {cls.__name__ for cls in WEIGHTS} == set(weights.split())
    assert {"ForwardEuler", "PairSplitting", "PoissonSplitting"} <= {cls.__name__ for cls in SOLVERS}
    assert {"EnergyDrift", "Norms", "Crossings"} <= {cls.__name__ for cls in REDUCERS}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("cls", ACTIVATIONS)
def test_activations_have_the_interface_of_their_kind(cls, dtype):
    sigma, y = activation(cls), jax.ShapeDtypeStruct((2, 3), dtype)
    for function in (sigma, sigma.derivative, sigma.potential):
        assert jax.eval_shape(function, y) == y
    for fact in (sigma.odd, sigma.bounded, sigma.continuous, sigma.monotone):
        assert isinstance(fact, bool) or (cls is jo.Elementwise and fact is None)  # nobody knows: measure it
    assert jax.tree.structure(sigma) == jax.tree.structure(activation(cls))  # two of them compile once


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("cls", WEIGHTS)
def test_weights_have_the_interface_of_their_kind(cls, dtype):
    n, key = 6, jax.random.key(0)

    def use(key):
        weight = cls.random(key, n, gain=2.0, dtype=dtype)
        assert (weight.size, weight.batch_shape) == (n, ())
        return weight.matrix(), weight.matvec(weight.matrix()[0]), weight.scaled(0.5).matrix()

    square, vector = jax.ShapeDtypeStruct((n, n), dtype), jax.ShapeDtypeStruct((n,), dtype)
    assert jax.eval_shape(use, key) == (square, vector, square)
    batch = jax.eval_shape(jax.vmap(lambda k: cls.random(k, n)), jax.random.split(key, 3))
    assert (batch.size, batch.batch_shape) == (n, (3,))
    assert isinstance(cls.skew, bool)
    assert isinstance(cls.hollow, bool)
    assert cls.law.strip().endswith(".")


def test_solvers_have_rows_in_the_table_of_problems():
    rows = SOLVER_ROWS | PAIR_ROWS | PROJECTION_ROWS | TAYLOR_ROWS
    assert {type(solver) for solver in rows.values()} >= set(SOLVERS)


def samples():
    """One instance of everything that holds data."""
    weight = jo.weights.DenseSkew.random(jax.random.key(0), 4)
    yield from (activation(cls) for cls in ACTIVATIONS)
    yield from (cls.random(jax.random.key(0), 4) for cls in WEIGHTS)
    yield from (cls() for cls in (*SOLVERS, *REDUCERS))
    yield jo.CurrentRNN(weight, jo.Erf(), bias=jnp.ones(4), leak=0.1)
    yield jo.RateRNN(weight)
    yield jo.Result.escaped


def test_instances_survive_pickle():
    for thing in samples():
        again = pickle.loads(pickle.dumps(thing))
        assert type(again) is type(thing)
        assert eqx.tree_equal(again, thing) is not False, thing
        assert jax.tree.structure(again) == jax.tree.structure(thing), thing


def test_a_sweep_and_its_plan_survive_pickle():
    sweep = jo.sweeps.Sweep(activation=["tanh", "relu"], dt=[0.1, 0.2], leak=[0, 0.1], draws=2, ics=3)
    again = pickle.loads(pickle.dumps(sweep))
    assert again.hash == sweep.hash
    assert str(again.plan()) == str(sweep.plan())
