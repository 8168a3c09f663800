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
# # Design a frequency
#
# "Oscillate at 1.3 cycles per unit of time." How hard is that?
#
# | wanted | way | gradients? |
# |---|---|---|
# | one frequency | run the same orbit faster: $W \to (f^*/f)\,W$ | none, exact |
# | one *sharp* frequency, $n > 2$ | move the start onto a closed orbit first | none |
# | the frequency, network unchanged | choose the energy | none |
# | the frequency, and something else besides | gradient of the period | yes |
# | several frequencies at once | Newton on the map of frequencies | yes |

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxosc as jo

jo.configure_cpu()
jax.config.update("jax_enable_x64", True)
quick = bool(os.environ.get("JAXOSC_QUICK"))  # a short run for continuous integration

# %% [markdown]
# ## A thousand pairs at once
#
# Two neurons each, random frequencies and starts, and targets from an eighth to eight times what they have. The closed
# form $f = \omega / 4K(1 - e^{-2E})$ judges.

# %%
count = 1000
random = np.random.default_rng(0)
omega = jnp.asarray(np.exp(random.uniform(-1, 1, count)))
pairs = jax.vmap(lambda omega: jo.CurrentRNN(jo.weights.RotationBlocks(omega[None])))(omega)
starts = jnp.asarray(random.standard_normal((count, 2)))
targets = jo.tuning.orbit_frequency(pairs, starts).frequency * 8 ** random.uniform(-1, 1, count)

tuned = jo.tuning.tune_frequency(pairs, starts, targets)
exact = 1 / jo.oracles.pair_period(
    jax.vmap(lambda f, y: f.energy(y))(tuned.field, tuned.y0), tuned.field.weight.angular_frequencies[:, 0]
)
print(tuned)
print(f"largest error against the closed form: {np.abs(exact / targets - 1).max():.1e}")

# %%
with jo.plotting.style():
    jo.plotting.tuning_history(tuned)
    plt.title("one step, and there")
    plt.show()

# %% [markdown]
# ## More neurons: is there a frequency at all?
#
# With four neurons or more a random start lies on a torus or in chaos. The dominant line of a readout can still be put
# anywhere by running the network faster, but is it the same line in a longer run? `error` says by how much it differs.

# %%
networks = jax.vmap(lambda key: jo.CurrentRNN(jo.weights.DenseSkew.random(key, 4)))(
    jax.random.split(jax.random.key(1), 8 if quick else 32)
)
starts = jnp.asarray(random.standard_normal((networks.batch_shape[0], 4)))
kept = jo.tuning.tune_frequency(networks, starts, 1.3)
closed = jo.tuning.tune_frequency(networks, starts, 1.3, closed=True)
for name, result in {"start kept": kept, "start on a closed orbit": closed}.items():
    print(f"{name}: median difference in a run twice as long {np.nanmedian(result.error) / 1.3:.1e}")
    print(result, "\n")

# %% [markdown]
# `closed=True` takes the start apart into linear modes and follows the closed orbits of the strongest one up to its
# energy. The result is a plain network and a plain start: every solver runs it.

# %%
one = jax.tree.map(lambda leaf: leaf[0], closed.field)
fig, axes = plt.subplots(1, 2, figsize=(9, 3))
for start, label, ax in ((kept.y0[0], "start kept", axes[0]), (closed.y0[0], "closed orbit", axes[1])):
    run = jo.simulate(one, start, t1=60 / 1.3, dt=0.005, solver=jo.solvers.PoissonSplitting(4), save_every=4)
    ax.plot(run.ys[:, 0], run.ys[:, 1], linewidth=0.4)
    ax.set(title=f"{label}, 60 turns", xlabel="$y_1$", ylabel="$y_2$")
plt.tight_layout()
plt.show()

# %% [markdown]
# ## Louder is slower: frequency against energy
#
# tanh saturates, so that larger orbits take longer. The curve of the pair is known in closed form; of a mode in a
# larger network it is followed orbit by orbit. The other way round, an energy can be chosen for a frequency.

# %%
pair = jo.CurrentRNN(jo.weights.RotationBlocks(jnp.array([2.0])))
curve = jo.tuning.frequency_curve(pair, jnp.array([0.3, 0.1]), np.linspace(0.05, 3, 12))
chosen = jo.tuning.energy_for_frequency(pair, jnp.array([0.3, 0.1]), 0.2)
print(chosen)
with jo.plotting.style():
    axes = jo.plotting.frequency_energy(curve, theory=lambda energy: 1 / jo.oracles.pair_period(energy, 2.0))
    axes.plot(chosen.energy, chosen.frequency, "*", markersize=12, color="tab:red", label="chosen for 0.2")
    axes.legend()
    plt.show()

# %% [markdown]
# ## The frequency and something else: gradients of the period
#
# `orbit_frequency` is a function with a derivative, here against the closed form. With an `objective`, every candidate
# is first brought onto the target by its time scale, and the optimiser only has the objective to care for.

# %%
start = jnp.array([0.5, 0.8])
measured = jax.value_and_grad(
    lambda omega: (
        jo.tuning.orbit_frequency(
            jo.CurrentRNN(jo.weights.RotationBlocks(omega[None])), start, measure=jo.tuning.Returns(), near=0.27
        ).frequency
    )
)(jnp.asarray(2.0))
formula = jax.value_and_grad(lambda omega: 1 / jo.oracles.pair_period(pair.energy(start), omega))(2.0)
print("value and slope by returns:", *(f"{float(x):.12f}" for x in measured))
print("closed form:               ", *(f"{float(x):.12f}" for x in formula))


# %%
def sparsity(field, y0):
    """Small where few entries of W are large."""
    return jnp.mean(jnp.sqrt(field.weight.entries**2 + 1e-3))


first = jo.CurrentRNN(jo.weights.DenseSkew.random(jax.random.key(1), 4))
result = jo.tuning.tune_frequency(
    first,
    jnp.array([0.1, 0.2, 0.3, 0.1]),
    0.2,
    over="weight",
    objective=sparsity,
    optimiser=optax.adam(0.05),
    measure=jo.tuning.Line(readout=0, turns=32),
    steps=5 if quick else 60,
    progress=False,
)
print(result)
print("entries before:", np.round(np.asarray(first.weight.entries), 2))
print("entries after: ", np.round(np.asarray(result.field.weight.entries), 2))
plt.plot(result.losses)
plt.xlabel("step")
plt.ylabel("objective (frequency exact throughout)")
plt.show()

# %% [markdown]
# ## Several frequencies at once
#
# Four frequencies in eight neurons, at an energy where the linear network with these frequencies would be several per
# cent off. The modes meet in every neuron; Newton's method on the map from linear to measured frequencies puts them
# right, and a longer run by another solver checks them.

# %%
wanted = np.array([1.0, 0.62]) if quick else np.array([1.0, 0.81, 0.57, 0.36])
several = jo.tuning.design(wanted, energy=0.28, throw=False, progress=False)
print(several)
run = jo.simulate(several.field, several.y0, t1=400.0, dt=0.02, solver=jo.solvers.PoissonSplitting(4), save_every=4)
with jo.plotting.style():
    axes = jo.plotting.frequency_spectrum(run.ts, run.ys, peaks=len(wanted), highest=2.5)
    for value in wanted:
        axes.axvline(value, color="tab:red", linewidth=0.6, zorder=0)
    plt.show()
