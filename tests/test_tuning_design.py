"""Designed networks: against theory where there is one (one frequency, small energy), and against runs of another kind.

Networks are judged by their start alone: `measured` follows it by a solver, step and length of its own and looks for
lines in the planes that the eigenvectors of W span.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxosc as jo
from jaxosc.tuning.frequency_map import draw_modes, network, scaled_to_energy
from jaxosc.tuning.resonances import nearest_relation, relation_in_words, relations

pytestmark = pytest.mark.usefixtures("native_loops")  # the same runs by XLA's loops take minutes


def design(*arguments, **options):
    """Without a word about progress."""
    return jo.tuning.design(*arguments, progress=False, **options)


def measured(field, y0, m, turns=2000.0, fastest=1.0):
    """The strongest line in each plane of W, ascending by linear frequency."""
    solver = jo.solvers.PoissonSplitting(8)
    run = jo.simulate(field, y0, t1=turns / fastest, dt=1 / (29 * fastest), save_every=5, solver=solver)
    _, vectors = np.linalg.eigh(1j * np.asarray(field.weight.matrix(), np.float64))
    along = np.asarray(run.ys) @ np.conj(vectors[:, -m:])
    planes = np.stack([along.real, along.imag], axis=-1).transpose(1, 0, 2)
    return np.asarray(jo.orbits.frequency(run.ts, planes.astype(run.ys.dtype)).frequency)


def member(result, k):
    """One network of a batch and its start."""
    field = result.field
    return network_of(field.weight.matrix()[k], field.activation), result.y0[k]


def network_of(matrix, activation):
    """A network of its own."""
    return jo.CurrentRNN(jo.weights.DenseSkew.from_matrix(matrix), activation)


class TestAgainstTheory:
    def test_one_frequency_of_the_pair(self) -> None:
        """Turning the plane of a pair changes nothing, so the closed form says what the linear frequency has to be."""
        result = design([1.3], energy=0.5)
        wanted = 1.3 * jo.oracles.pair_period(0.5, 2 * np.pi)
        # The search stops when a tenth of the tolerance is left.
        np.testing.assert_allclose(result.linear_frequencies[0], wanted, rtol=1e-6)
        np.testing.assert_allclose(result.field.energy(result.y0), 0.5, rtol=1e-12)
        assert bool(result.reached) and float(result.error) < 1e-6

    def test_linear_limit(self) -> None:
        """Linear frequencies are the wanted ones to rounding, resonant or not, with any slope of sigma at zero."""
        result = design([[2.0, 1.0], [1.0, 1.0]], 5, activation=jo.Erf())
        slope = 2 / np.sqrt(np.pi)
        eigenvalues = np.linalg.eigvals(np.asarray(result.field.weight.matrix())).imag * slope / (2 * np.pi)
        np.testing.assert_allclose(np.sort(eigenvalues), [[-2, -1, 0, 1, 2], [-1, -1, 0, 1, 1]], atol=1e-13)
        np.testing.assert_array_equal(result.linear_frequencies, result.targets)
        # What H = 1e-8 shifts, for sigma = slope (y - y^3 / 3 + ...): by about as much.
        np.testing.assert_allclose(result.frequencies, result.targets, rtol=3e-8)
        assert result.reached.all()

    def test_frames_couple_all_neurons(self) -> None:
        modes = draw_modes(jax.random.key(3), np.array([0, 5]), np.arange(3), np.full((2, 2), 0.5), 6)
        products = np.einsum("mnc,mnd->mcd", modes.planes, modes.planes)
        np.testing.assert_allclose(products, np.broadcast_to(np.eye(4), products.shape), atol=1e-14)
        assert (np.abs(modes.planes) > 1e-4).all()
        along = np.einsum("mnc,mn->mc", modes.planes, modes.starts).reshape(6, 2, 2)
        np.testing.assert_allclose((along**2).sum(axis=-1), 0.5, rtol=1e-13)
        again = draw_modes(jax.random.key(3), np.array([5]), np.arange(2, 3), np.full((1, 2), 0.5), 6)
        np.testing.assert_array_equal(again.planes[0], modes.planes[5])
        for one in range(5):
            assert np.abs(modes.planes[one] - modes.planes[5]).max() > 0.1

    @pytest.mark.parametrize("activation", [jo.Tanh(), jo.HardTanh(), jo.Softsign()])
    def test_energy_of_starts(self, activation) -> None:
        directions = np.random.default_rng(0).standard_normal((3, 4))
        energy = np.array([1e-8, 0.3, 40.0])
        starts = scaled_to_energy(activation, directions, energy)
        np.testing.assert_allclose(activation.potential(jnp.asarray(starts)).sum(axis=1), energy, rtol=1e-12)

    def test_network_turns_its_planes(self) -> None:
        planes = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))[0][:, :4]
        matrix = np.asarray(network(planes, np.array([0.5, 2.0]), jo.Tanh()).weight.matrix())
        blocks = np.asarray(jo.weights.RotationBlocks.from_frequencies([0.5, 2.0]).matrix())
        np.testing.assert_allclose(matrix, planes @ blocks @ planes.T, atol=1e-14)


class TestRelations:
    def test_all_of_two(self) -> None:
        found = {tuple(k) for k in relations(2, 3)}
        assert found == {
            (1, 0),
            (0, 1),
            (2, 0),
            (0, 2),
            (1, 1),
            (1, -1),
            (3, 0),
            (0, 3),
            (2, 1),
            (2, -1),
            (1, 2),
            (1, -2),
        }

    def test_words(self) -> None:
        k, off = nearest_relation(np.array([[1.0, 0.7, 0.41], [1.0, 0.3, 0.651]]), 4)
        assert [relation_in_words(row) for row in k] == ["f1 + f3 = 2 f2", "f1 + f2 = 2 f3"]
        np.testing.assert_allclose(off, [0.01, 0.002], rtol=1e-9)


class TestAtFiniteEnergy:
    def test_batch_and_what_is_refused(self) -> None:
        """One call: two frequencies in five neurons at two energies, among them sets that cannot be had."""
        targets = np.array([[[8.0, 13.0], [1.0, 0.5]], [[5.0, 5.0], [1.0, 0.0]], [[2.0, 1.3], [1.0, 0.37]]])
        energy = np.array([[0.3, 0.3], [0.3, 0.3], [0.6, 0.0]])
        result = design(targets, 5, energy=energy)
        np.testing.assert_array_equal(result.reached, [[True, False], [False, False], [True, True]])
        assert result.reason.shape == (3, 2)
        assert "f1 = 2 f2" in result.reason[0, 1] and "f1 = f2" in result.reason[1, 0]
        assert "0 is no frequency" in result.reason[1, 1]
        assert np.isnan(np.asarray(result.frequencies)[~np.asarray(result.reached)]).all()
        assert result.field.batch_shape == (3, 2) and result.y0.shape == (3, 2, 5)
        assert "6 sets of 2 frequencies, n = 5: 3 reached" in repr(result) and "f1 = 2 f2" in repr(result)
        for place in ((0, 0), (2, 0)):
            field, y0 = member(result, place)
            np.testing.assert_allclose(field.energy(y0), energy[place], rtol=1e-12)
            found = measured(field, y0, 2, fastest=targets[place].max())
            np.testing.assert_allclose(found, np.sort(targets[place]), rtol=1e-5)
            # What correction there was: H = 0.3 shifts by 0.3 * 2 / 5 of itself, up to the frame.
            shift = np.asarray(result.linear_frequencies[place]) / targets[place] - 1
            assert (shift > 0.03).all()
        assert np.abs(np.asarray(casimir_part(result, (0, 0)))).max() < 1e-12

    def test_same_alone(self) -> None:
        """A set does not depend on its neighbours: frames belong to its number, here 0."""
        options = dict(energy=0.3, attempts=1)
        alone = design([8.0, 13.0], 5, **options)
        both = design([[8.0, 13.0], [1.0, 0.0]], 5, **options)
        np.testing.assert_allclose(both.linear_frequencies[0], alone.linear_frequencies, rtol=1e-9)
        np.testing.assert_array_equal(both.y0[0], alone.y0)
        text = repr(alone)
        assert "2 frequencies, n = 5, energy 0.3: reached" in text and "wanted" in text
        other = design([8.0, 13.0], 5, key=jax.random.key(1), **options)
        assert np.abs(np.asarray(other.y0 - alone.y0)).max() > 0.01

    def test_shares_and_float32(self) -> None:
        targets = jnp.asarray([2.0, 1.3], jnp.float32)
        result = design(targets, 5, energy=0.3, shares=[0.8, 0.2], attempts=1)
        assert {leaf.dtype for leaf in (result.y0, result.frequencies, result.field.weight.entries)} == {targets.dtype}
        _, vectors = np.linalg.eigh(1j * np.asarray(result.field.weight.matrix(), np.float64))
        squares = np.abs(np.asarray(result.y0, np.float64) @ np.conj(vectors[:, -2:])) ** 2
        np.testing.assert_allclose(squares / squares.sum(), [0.2, 0.8], atol=1e-5)  # ascending by frequency
        found = measured(result.field, result.y0, 2, fastest=2.0)
        np.testing.assert_allclose(found, [1.3, 2.0], rtol=1e-4)

    def test_chaos_is_told(self) -> None:
        with pytest.raises(jo.JaxoscError, match=r"No sharp lines at energy 6.*lower the energy"):
            design([8.0, 13.0], 5, energy=6.0, attempts=1)

    def test_bounds_of_sigma(self) -> None:
        result = design([1.0], energy=60.0, attempts=1, throw=False)
        assert not result.reached and "bounds of sigma" in result.reason

    @pytest.mark.slow
    def test_four_frequencies(self) -> None:
        """At H = 0.28 linear frequencies are more than 5 % off; four times as long as the verification within."""
        targets = np.array([1.0, 0.818, 0.719, 0.39])
        result = design(targets, energy=0.28)
        assert (np.abs(np.asarray(result.linear_frequencies) / targets - 1) > 0.05).all()
        found = measured(result.field, result.y0, 4, turns=12_800.0)
        np.testing.assert_allclose(found, np.sort(targets), rtol=1e-5)


def casimir_part(result, place):
    """What of the start lies in the kernel of W, where the orbit rests."""
    field, y0 = member(result, place)
    return field.casimirs(y0)


class TestRefuses:
    @pytest.mark.parametrize(
        ("arguments", "options", "words"),
        [
            (([1.0, 0.6], 3), dict(), "expected at least 2m = 4"),
            (([],), dict(), "expected \\(m,\\)"),
            (([1.0, np.nan],), dict(), "NaN"),
            (([1.0, 0.6],), dict(energy=-1.0), "H >= 0"),
            (([1.0, 0.6],), dict(energy=[1.0, 2.0]), "energy of shape"),
            (([1.0, 0.6],), dict(shares=[1.0]), "shares of shape"),
            (([1.0, 0.6],), dict(shares=[1.0, 0.0]), "positive"),
            (([1.0, 0.6],), dict(activation=jo.ReLU()), "odd and increasing"),
            (([1.0, 0.6],), dict(tolerance=0.0), "positive"),
            (([1.0, 0.6],), dict(attempts=0), "attempts"),
            (([1.0, 0.5],), dict(energy=0.3), "f1 = 2 f2"),
            (([1.0, 0.01],), dict(), "1/64"),
            (([1.0, -0.6],), dict(), "-0.6 is no frequency"),
        ],
    )
    def test_bad_input(self, arguments, options, words) -> None:
        with pytest.raises(jo.JaxoscError, match=words):
            design(*arguments, **options)

    def test_traced(self) -> None:
        with pytest.raises(jo.JaxoscError, match=r"outside jax\.jit"):
            jax.jit(lambda f: design(f).y0)(jnp.ones(2))
