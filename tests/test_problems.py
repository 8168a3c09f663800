"""The table of problems itself: each closed form starts where it says, obeys its field, and moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import PROBLEMS, Problem

TIMES = np.random.default_rng(0).uniform(-20.0, 20.0, 12)

every_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=str)


def test_names_are_unique() -> None:
    assert len({problem.name for problem in PROBLEMS}) == len(PROBLEMS)


@every_problem
def test_exact_starts_at_y0(problem: Problem) -> None:
    assert problem.exact(np.array(0.0)) == pytest.approx(np.array(problem.y0), abs=1e-13)


@every_problem
def test_exact_solves_the_field(problem: Problem) -> None:
    step = 1e-3  # eighth-order difference: truncation and rounding both near 1e-12
    weights = np.array([1 / 280, -4 / 105, 1 / 5, -4 / 5, 0, 4 / 5, -1 / 5, 4 / 105, -1 / 280])
    states = problem.exact(TIMES[:, None] + step * np.arange(-4, 5))
    derivative = np.einsum("k,tkn->tn", weights, states) / step
    field = problem.make_field()
    expected = jax.vmap(lambda y: field(0.0, y, None))(problem.exact(TIMES))
    assert np.abs(expected).max() > 0.1
    assert derivative == pytest.approx(np.asarray(expected), abs=1e-10 * np.abs(states).max())


@pytest.mark.parametrize("problem", [p for p in PROBLEMS if p.conservative], ids=str)
def test_invariants_of_conservative_rows(problem: Problem) -> None:
    field, states = problem.make_field(), jnp.asarray(problem.exact(TIMES))
    energies, casimirs = np.asarray(field.energy(states)), np.asarray(field.casimirs(states))
    assert energies == pytest.approx(np.full(len(TIMES), energies[0]), rel=1e-12)
    assert casimirs.shape == (len(TIMES), problem.casimirs)
    assert casimirs == pytest.approx(np.broadcast_to(casimirs[0], casimirs.shape), abs=1e-12)
    assert (np.abs(casimirs) > 1e-2).all()


@pytest.mark.parametrize("problem", [p for p in PROBLEMS if not p.conservative], ids=str)
def test_energy_of_other_rows_changes(problem: Problem) -> None:
    assert np.ptp(problem.make_field().energy(jnp.asarray(problem.exact(TIMES)))) > 1e-2


@pytest.mark.parametrize("problem", [p for p in PROBLEMS if p.period], ids=str)
def test_orbit_closes_after_the_period_and_not_after_half_of_it(problem: Problem) -> None:
    states = problem.exact(TIMES)
    assert problem.exact(TIMES + problem.period) == pytest.approx(states, abs=1e-12 * np.abs(states).max())
    assert np.abs(problem.exact(TIMES + problem.period / 2) - states).max() > 0.1


@every_problem
def test_exact_moves(problem: Problem) -> None:
    start = np.array(problem.y0)
    assert np.linalg.norm(problem.exact(TIMES) - start, axis=-1).max() > 0.5 * np.linalg.norm(start)
