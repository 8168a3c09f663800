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
# # Fit a waveform
#
# A recording is short, and the network that learned it should go on by itself: no input, no teacher, for as long as one
# likes. Most models then die or blow up. A skew network cannot: its energy is conserved, so that a run neither decays
# nor grows. `jo.tuning.fit_waveform` finds such a network with a linear readout,
#
# $$ y' = W \sigma(y), \quad W^\top = -W, \qquad x(t) = C\,y(t) + c . $$

# %%
import os

import jax
import matplotlib.pyplot as plt
import numpy as np

import jaxosc as jo

jo.configure_cpu()
jax.config.update("jax_enable_x64", True)
quick = bool(os.environ.get("JAXOSC_QUICK"))  # a short run for continuous integration

# %% [markdown]
# ## Three tones and noise
#
# Ten periods of the slowest tone, noise 20 dB below. Lines of the spectrum, found together by least squares, say how
# many planes of rotation are needed; the rest follows through the run of the network itself.

# %%
tones = np.array([1, np.sqrt(2), np.sqrt(5)])
ts = np.arange(4000) / 400
clean = np.sin(2 * np.pi * tones * ts[:, None]).sum(axis=1)
target = clean + np.sqrt(0.015) * np.random.default_rng(0).standard_normal(len(ts))
network = jo.tuning.fit_waveform(None, None, ts, target, progress=False)
print(network)
print("relative errors of the frequencies:", np.sort(network.frequencies) / tones - 1)

# %% [markdown]
# The data end at $t = 10$. The network goes on; 990 periods later its amplitude is what it was, and only the error of
# the frequencies, which the noise sets, has moved its phase.

# %%
figure, panels = plt.subplots(1, 2, figsize=(11, 3), layout="constrained", sharey=True)
for axes, begin in zip(panels, (7.0, 994.0), strict=True):
    shown = begin + np.arange(0, 6, 0.01)
    truth = np.sin(2 * np.pi * tones * shown[:, None]).sum(axis=1)
    axes.plot(shown, truth, color="0.7", linewidth=3, label="the tones")
    axes.plot(shown, network(shown)[:, 0], label="the network")
    axes.set_xlabel("time")
panels[0].axvline(10, color="0.4", linestyle=":")
panels[0].legend(loc="lower left")
plt.show()

# %% [markdown]
# ## A pulse, from a file
#
# A periodic signal with many harmonics: `periodic=True` keeps all frequencies at multiples of one, so that the shape
# never falls apart. `read_waveform` takes a `.csv` with times in the first column.

# %%
ts = np.arange(600) * 0.05
pulse = np.exp(8 * np.cos(2 * np.pi * ts / 7.3) - 8) - 0.4 * np.exp(8 * np.cos(2 * np.pi * ts / 7.3 - 0.9) - 8)
noise = 0.05 * np.random.default_rng(1).standard_normal(len(ts))
np.savetxt("pulse.csv", np.column_stack([ts, pulse + noise]), delimiter=",", header="time,pulse", comments="")

times, channels = jo.tuning.read_waveform("pulse.csv")
network = jo.tuning.fit_waveform(None, None, times, channels, neurons=20, periodic=True, progress=False)
print(network)
figure, axes = plt.subplots(figsize=(9, 3), layout="constrained")
axes.plot(times, channels[:, 0], color="0.75", label="data")
axes.plot(network.times(60.0), network.generate(60.0)[:, 0], label="the network")
axes.set_xlabel("time")
axes.legend(loc="upper right")
plt.show()
os.remove("pulse.csv")

# %% [markdown]
# ## When the nonlinearity earns its place
#
# Near zero tanh is linear, and a network of $n$ neurons plays $n/2$ waves. Far out two neurons alone run along a
# square, and each draws a triangle: all odd harmonics at once. `amplitudes` are the sizes at which networks begin; a
# criterion that counts unknowns decides.

# %%
ts = np.arange(300) * 0.05
triangle = 2 / np.pi * np.arcsin(np.sin(2 * np.pi * 0.53 * ts))
target = triangle + 0.02 * np.random.default_rng(2).standard_normal(len(ts))
found = {
    "one wave": jo.tuning.fit_waveform(None, None, ts, target, neurons=2, amplitudes=(0.01,), progress=False),
    "two neurons, far out": jo.tuning.fit_waveform(
        None, None, ts, target, neurons=2, amplitudes=(0.01, 3.0), progress=False
    ),
}
figure, axes = plt.subplots(figsize=(9, 3), layout="constrained")
axes.plot(ts[:120], target[:120], ".", color="0.6", label="data")
for name, network in found.items():
    axes.plot(ts[:120], network(ts[:120])[:, 0], label=f"{name}: error {float(network.error):.3f}")
axes.legend(loc="upper right")
plt.show()

# %% [markdown]
# ## A network of one's own
#
# With a field and a start, weights and start are improved together, over horizons that grow. Here four coupled neurons
# are found again from one channel of what they played, from weights that are 10 % off.

# %%
truth = jo.CurrentRNN(jo.weights.DenseSkew.random(jax.random.key(1), 4))
start = jax.random.normal(jax.random.key(2), (4,))
run = jo.simulate(truth, start, t1=45.0, dt=0.1, save_every=3, solver=jo.solvers.PoissonSplitting(4))
played = np.asarray(run.ys) @ np.array([1.0, -0.5, 0.3, 0.8])
guess = truth.weight.entries * (1 + 0.1 * jax.random.normal(jax.random.key(3), (6,)))
field = jo.CurrentRNN(jo.weights.DenseSkew(guess))
network = jo.tuning.fit_waveform(field, 0.9 * start, np.asarray(run.ts), played, dt=0.1, progress=False)
print(network)
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.semilogy(network.history)
axes.set_xlabel("step of the search")
axes.set_ylabel("error at its horizon")
plt.show()
