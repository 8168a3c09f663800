# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A stability sweep and its maps
#
# For which activation, step size, gain and solver does a random skew network keep oscillating? A *sweep* asks this of
# every combination, over many weight draws and many starts, and writes the answers into a Zarr store that plain
# xarray opens. This is `jaxosc sweep` from inside a notebook.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import jaxosc as jo

quick = bool(os.environ.get("JAXOSC_QUICK"))  # a short run for continuous integration

# %% [markdown]
# ## Declare and look at the plan
#
# Axes named here become dimensions of the result. Activation, solver and number of neurons need a compiled program
# each; everything else is traced, so it costs no compilation.

# %%
sweep = jo.sweeps.Sweep(
    activation=["identity", "tanh", "rectified_tanh"],
    solver=["euler", "poisson_splitting", "tsit5"],
    neurons=[4],
    dt=list(np.geomspace(0.02, 1.0, 4 if quick else 8)),
    gain=[0.5, 1.0, 2.0],
    draws=4 if quick else 16,
    ics=4 if quick else 16,
    duration=20.0 if quick else 100.0,
    seed=1,
)
print(sweep.plan())

# %% [markdown]
# ## Run it
#
# The run can be interrupted at any time; running it again continues where it stopped, to the same bits.

# %%
store = Path(tempfile.mkdtemp()) / "stability"
data = sweep.run(store)
data

# %% [markdown]
# ## The maps
#
# Colour is the median over draws and starts of the largest relative energy drift on the way. Where members escaped,
# the map says which share did.

# %%
with jo.plotting.style():
    jo.plotting.stability_map(data)
plt.show()

# %% [markdown]
# The linear network blows up under forward Euler at every step size, given time; tanh slows that to a square root
# (it looks harmless at small steps, and never stops). Splitting keeps the energy wherever dt times the spectral norm
# of the weight stays well below 2.
#
# The same against the step size alone, with slopes to compare:

# %%
with jo.plotting.style():
    jo.plotting.drift_against_dt(data)
plt.show()

# %% [markdown]
# How the runs ended:

# %%
with jo.plotting.style():
    jo.plotting.result_shares(data)
plt.show()

# %% [markdown]
# ## Ask the dataset
#
# It is an ordinary `xarray.Dataset`. For instance: which share of the tanh members stayed within one per cent of their
# energy, by solver and step size?

# %%
kept = abs(data.energy_drift_max.sel(activation="tanh")) < 0.01
kept.mean(["neurons", "gain", "draw", "ic"]).to_pandas().round(3)

# %% [markdown]
# And one member, taken out again for a closer look:

# %%
member = jo.sweeps.member(data, activation="tanh", solver="euler", gain=1.0, dt=0.1, draw=0, ic=0)
closer = jo.simulate(
    member.field, member.y0, t1=200.0, dt=member.dt, ts=np.linspace(0, 200, 4001), solver=member.solver
)
with jo.plotting.style():
    jo.plotting.phase_portrait(closer, field=member.field)
plt.show()
