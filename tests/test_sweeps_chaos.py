"""Sweeps that measure chaos and have an axis of energies: the same numbers as one by one, and what theory says."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import jaxosc as jo
from jaxosc.sweep_options import study_of
from jaxosc.sweeps import Sweep
from jaxosc.sweeps.kernel import CHAOS_SAMPLES, CHAOS_STEPS
from jaxosc.sweeps.schema import ORBITS

ENERGIES = (0.02, 1.5)


@pytest.fixture(scope="module")
def atlas() -> xarray.Dataset:
    """Small: closed orbits, tori at small energy, and chaos at large, each long enough to tell."""
    return jo.sweeps.chaos_study(
        activation="tanh",
        weight_law="dense_skew",
        neurons=(3, 8),
        ic={"law": "energy_per_neuron", "energy": ENERGIES},
        draws=6,
        duration=2000.0,
    ).run(None, workers=1)


def words(data: xarray.Dataset) -> list[str]:
    return [ORBITS[code] for code in np.asarray(data.orbit).ravel()]


def test_starts_have_their_energies(atlas: xarray.Dataset):
    assert atlas.energy.values.tolist() == list(ENERGIES)
    assert "per neuron" in atlas.energy.attrs["long_name"]
    sweep = jo.sweeps.spec_of(atlas)
    for n in (3, 8):
        for energy in ENERGIES:
            member = jo.sweeps.member(sweep, neurons=n, energy=energy, draw=4, ic=0)
            # 64 halvings of the bracket leave a rounding.
            assert float(member.field.energy(member.y0)) == pytest.approx(n * energy, rel=1e-13)
    low, high = (jo.sweeps.member(sweep, neurons=8, energy=energy, draw=4, ic=0).y0 for energy in ENERGIES)
    np.testing.assert_allclose(low / jnp.linalg.norm(low), high / jnp.linalg.norm(high), rtol=1e-12)


def test_exponents_and_megno_are_those_of_single_runs(atlas: xarray.Dataset):
    """The same steps and intervals; the deviation is the same too. Chaos multiplies rounding: the torus is compared."""
    sweep = jo.sweeps.spec_of(atlas)
    place = dict(neurons=8, energy=ENERGIES[0], draw=2, ic=0)
    member = jo.sweeps.member(sweep, **place)
    steps = CHAOS_STEPS * CHAOS_SAMPLES * (member.num_steps // (CHAOS_STEPS * CHAOS_SAMPLES))
    options = dict(t1=steps * member.dt, dt=member.dt, solver=member.solver, samples=CHAOS_SAMPLES)
    options |= dict(renormalise_every=CHAOS_STEPS)
    found = jo.orbits.megno(member.field, member.y0, **options)
    spectrum = jo.orbits.lyapunov_spectrum(member.field, member.y0, num_exponents=1, **options)
    here = atlas.sel(place).squeeze()
    # 20,000 steps on a torus, where deviations grow in proportion to the time.
    assert float(here.megno) == pytest.approx(float(found.mean), rel=1e-6)
    assert float(here.lyapunov) == pytest.approx(float(spectrum.exponents[0]), rel=1e-6)


def test_two_and_three_neurons_are_never_chaotic_and_eight_are_at_large_energy(atlas: xarray.Dataset):
    closed = atlas.sel(neurons=3)
    assert set(words(closed)) <= {"periodic", "undecided"}
    assert words(closed).count("periodic") >= 8
    assert words(atlas.sel(neurons=8, energy=ENERGIES[0])).count("quasi_periodic") >= 5
    assert words(atlas.sel(neurons=8, energy=ENERGIES[1])).count("chaotic") >= 5
    # Gain 1 makes periods about 2 pi; exponents of such networks are some hundredths (0.01 to 0.04 in science's draws).
    wild = np.asarray(atlas.lyapunov.sel(neurons=8, energy=ENERGIES[1]))
    assert (wild > 0.005).all() and (wild < 0.3).all()
    tame = np.asarray(atlas.lyapunov.sel(neurons=8, energy=ENERGIES[0]))
    assert np.median(tame) < 0.005, "log(t) / t = 0.004 on a torus"


def test_the_same_bits_in_other_chunks_and_from_its_seed(atlas: xarray.Dataset):
    again = jo.sweeps.spec_of(atlas).run(None, workers=1, chunk_members=5)
    for name in ("megno", "lyapunov", "orbit"):
        np.testing.assert_array_equal(atlas[name].values, again[name].values, err_msg=name)


def test_one_energy_is_no_dimension_and_its_hash_stays():
    one, several = (Sweep(ic={"law": "energy", "energy": energy}) for energy in (2.5, [2.5]))
    assert one.ic.energy == 2.5 and several.ic.energy == (2.5,)
    assert one.hash != several.hash
    assert one.replace(ic={"law": "energy", "energy": 2.5}).hash == one.hash
    assert [dim.name for dim in several.plan().dimensions].count("energy") == 1
    assert "energy" not in [dim.name for dim in one.plan().dimensions]
    with pytest.raises(jo.JaxoscError, match="energy_per_neuron"):
        Sweep(ic={"law": "energy_per_neuron"})
    with pytest.raises(jo.JaxoscError, match=r"ic\.energy"):
        Sweep(ic={"law": "energy", "energy": [1.0, -1.0]})


def test_shared_networks_start_at_every_energy():
    """In the layout where lanes share W the energies lie side by side with the starts."""
    sweep = Sweep(
        neurons=12, gain=[0.5, 1], ic={"law": "energy", "energy": ENERGIES}, draws=2, ics=8, duration=4, dtype="float64"
    )
    data = sweep.run(None, workers=1)
    place = dict(gain=0.5, energy=ENERGIES[1], draw=1, ic=5)
    member = jo.sweeps.member(sweep, **place)
    solution = jo.simulate(member.field, member.y0, t1=4.0, dt=member.dt, reducers=(jo.Norms(),))
    found = data.sel(place).squeeze()
    np.testing.assert_allclose(found.max_norm, solution.reduced["max_norm"], rtol=1e-12)


def test_studies_by_name_and_files_before_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert study_of(None, {}).hash == jo.sweeps.default_study().hash
    assert study_of(Path("chaos"), {"draws": 3}).hash == jo.sweeps.chaos_study(draws=3).hash
    Path("chaos").write_text("neurons = 5\n")
    assert study_of(Path("chaos"), {}).neurons == (5,)
