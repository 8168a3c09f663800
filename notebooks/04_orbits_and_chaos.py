# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Orbits and chaos
#
# "It oscillates for ever" can mean four different things:
#
# | kind | where | how to tell |
# |---|---|---|
# | closed orbits, one for each energy | $n = 2$ and $3$, always | the orbit returns |
# | tori: several frequencies at once | $n \ge 4$, small energy | deviations grow like $t$ |
# | chaos | $n \ge 4$, larger energy | deviations grow like $e^{\lambda t}$ |
# | limit cycles, which attract | only where $W$ is not skew | all starts end on one orbit |
#
# This notebook looks at each of them, and ends with the map of where chaos begins.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxosc as jo

jo.configure_cpu()
jax.config.update("jax_enable_x64", True)
quick = bool(os.environ.get("JAXOSC_QUICK"))  # a short run for continuous integration

# %% [markdown]
# ## What the matrix alone says

# %%
weight = jo.weights.DenseSkew.random(jax.random.key(5), 4)
network = jo.CurrentRNN(weight, jo.Tanh())
for name, matrix in {"skew": weight.matrix(), "not skew": jnp.array([[0.12, 2.0], [-1.0, -0.1]])}.items():
    verdict = jo.structure(np.asarray(matrix))
    print(f"{name}: {verdict.kind}. {verdict.reason}")
    for sentence in verdict.consequences:
        print("   ", sentence)

# %% [markdown]
# ## Closed orbits: period against energy
#
# Two neurons run on closed curves, one for each energy. `periodic_orbit` finds one to rounding, and `continue_family`
# follows the family; the closed form $T = (4/\omega)\,K(1 - e^{-2E})$ is the thin line beneath.

# %%
pair = jo.CurrentRNN(jo.weights.RotationBlocks(jnp.array([1.0])), jo.Tanh())
orbit = jo.orbits.periodic_orbit(pair, jnp.array([0.3, 0.0]), 6.4, dt=0.05)
energies = jnp.linspace(0.1, 3.0, 8 if quick else 24)
family = jo.orbits.continue_family(pair, orbit, energies, dt=0.05)
print(orbit)
print(family)
print("largest error of a period:", float(jnp.max(jnp.abs(family.period / jo.oracles.pair_period(energies, 1.0) - 1))))
figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
jo.plotting.period_energy(family, theory=lambda energy: jo.oracles.pair_period(energy, 1.0), ax=axes)
plt.show()

# %% [markdown]
# ## Tori and chaos on one level of the energy
#
# Four neurons: a section through the orbits of eight starts. At small energy each leaves its dots on a curve, the trace
# of a torus; at larger energy some of them fill an area.

# %%
directions = np.random.default_rng(1).standard_normal((8, 4))


def starts_at(energy):
    """The eight directions, each scaled until H has this value."""
    low, high = np.zeros(8), np.full(8, 100.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = np.asarray(network.energy(middle[:, None] * directions)) < energy
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return high[:, None] * directions


figure, panels = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
for axes, energy in zip(panels, (0.1, 6.0), strict=True):
    section = jo.orbits.poincare_crossings(
        network, starts_at(energy), t1=300.0 if quick else 6000.0, dt=0.1, max_crossings=64 if quick else 1024
    )
    jo.plotting.poincare_section(section, ax=axes)
    axes.set_title(f"E = {energy:g}")
plt.show()

# %% [markdown]
# ## How fast deviations grow
#
# The exponents of a conservative network come in pairs $\pm\lambda$, and two are zero (the flow, and the energy). Both
# hold for the solver's own steps, so what is left of them tells how far the averages have converged.

# %%
chaotic = starts_at(6.0)
spectra = jo.orbits.lyapunov_spectrum(network, chaotic, t1=500.0 if quick else 20_000.0, dt=0.2)
print(spectra)
most = int(np.argmax(np.asarray(spectra.exponents)[:, 0]))
figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
jo.plotting.lyapunov_convergence(spectra, member=most, ax=axes)
plt.show()

# %% [markdown]
# ## A verdict for each orbit
#
# `classify` asks one method after the other, runs longer where they doubt, and says why.

# %%
for energy in (0.1, 6.0):
    found = jo.orbits.classify(network, starts_at(energy), periods=100.0 if quick else 300.0)
    print(f"E = {energy:g}:", found)
    print("   ", found.reason[0])

# %% [markdown]
# ## Limit cycles in the strict sense
#
# An orbit that attracts others needs a $W$ that is not skew. The search starts at random, lets a transient pass, closes
# the orbit to rounding and asks its Floquet multipliers: all but the one along the flow lie inside the unit circle.

# %%
cycles = jo.orbits.limit_cycles(jo.CurrentRNN(jnp.array([[0.12, 2.0], [-1.0, -0.1]])), starts=64 if quick else 256)
print(cycles)

# %% [markdown]
# ## Where chaos begins
#
# A small atlas (`jaxosc sweep chaos` runs the large one): the share of chaotic orbits among random networks, by their
# size and the energy of the start, with the 95 % interval that so few draws leave.

# %%
study = jo.sweeps.chaos_study(
    activation="tanh",
    weight_law="dense_skew",
    neurons=(2, 4) if quick else (2, 3, 4, 6, 8),
    draws=8 if quick else 32,
    duration=1000.0 if quick else 10_000.0,
)
atlas = study.run(None, progress=False)
jo.plotting.chaos_atlas(atlas)
plt.show()
