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
# # First oscillation
#
# Two neurons that excite and inhibit each other are the smallest network that never comes to rest:
#
# $$\dot y = W\tanh(y), \qquad W = \begin{pmatrix} 0 & \omega \\ -\omega & 0 \end{pmatrix}.$$
#
# This notebook integrates the pair, looks at the energy that its motion conserves, and compares three ways of
# stepping through time. Everything has a closed form to check against (`jo.oracles`).

# %%
import os

import diffrax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import jaxosc as jo

jax.config.update("jax_enable_x64", True)
quick = bool(os.environ.get("JAXOSC_QUICK"))  # a short run for continuous integration

# %% [markdown]
# ## One pair, one line
#
# `RotationBlocks` is the weight made of such pairs; here it has one, with angular frequency 1.

# %%
pair = jo.CurrentRNN(jo.weights.RotationBlocks(jnp.array([1.0])), jo.Tanh())
y0 = jnp.array([1.5, 0.0])

solution = jo.simulate(pair, y0, t1=100.0, dt=0.1, ts=jnp.linspace(0, 100, 2001), reducers=(jo.Crossings(),))
solution

# %% [markdown]
# The period measured from crossings of zero, beside the closed form $T = \frac{4}{|\omega|} K(1 - e^{-2E})$, and the
# distance of the whole trajectory from the exact solution:

# %%
energy = pair.energy(y0)
exact_period = jo.oracles.pair_period(energy, 1.0)
exact = jo.oracles.pair_solution(solution.ts, y0, 1.0)
print(f"energy                 {energy:.6f}")
print(f"period, measured       {solution.reduced['period']:.6f}")
print(f"period, closed form    {exact_period:.6f}")
print(f"largest distance       {jnp.abs(solution.ys - exact).max():.1e}")

# %% [markdown]
# A smaller step or a higher order brings the distance down. The slope is the order:

# %%
for order in (1, 2, 4):
    errors = []
    for dt in (0.04, 0.02):
        run = jo.simulate(pair, y0, t1=50.0, dt=dt, solver=jo.solvers.PoissonSplitting(order))
        errors.append(float(jnp.abs(run.ys[0] - jo.oracles.pair_solution(50.0, y0, 1.0)).max()))
    slope = jnp.log2(errors[0] / errors[1])
    print(f"order {order}: error {errors[0]:.1e} at dt = 0.04, {errors[1]:.1e} at dt = 0.02, slope {slope:.2f}")

# %% [markdown]
# ## Euler against splitting
#
# The motion conserves $H(y) = \sum_i \log\cosh y_i$: the orbit is a level set of it. Forward Euler does not know
# that. Because $H$ is convex every Euler step adds energy, and the bounded activation turns what would be an
# exponential explosion into a square root, $(H + \ln 4)^2 \approx (H_0 + \ln 4)^2 + 2\,\Delta t\,\omega^2 t$. The
# growth never ends.
#
# Poisson splitting moves one coordinate at a time, each exactly, and stays on a nearby level set for ever.

# %%
t1 = 200.0 if quick else 20_000.0
dt = 0.1
ts = jnp.unique(jnp.round(jnp.geomspace(0.1, t1, 600), 1))  # whole steps, denser at the beginning
solvers = {
    "forward Euler": jo.ForwardEuler(),
    "Tsit5": diffrax.Tsit5(),
    "Poisson splitting, order 2": jo.solvers.PoissonSplitting(2),
    "Poisson splitting, order 4": jo.solvers.PoissonSplitting(4),
}
energies = {
    name: pair.energy(jo.simulate(pair, y0, t1=t1, dt=dt, ts=ts, solver=solver).ys) for name, solver in solvers.items()
}
theory = jo.oracles.euler_tanh_energy_averaged(ts, energy, 1.0, dt)
for name, values in energies.items():
    print(f"{name:<28} energy drift after t = {t1:g}: {values[-1] / energy - 1:+.1e}")

# %%
colors = dict(zip(solvers, ("#D55E00", "#CC79A7", "#0072B2", "#009E73"), strict=True))
with jo.plotting.style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.9), layout="constrained", width_ratios=(2, 3))
    span = jnp.linspace(0, 60.0, 3001)
    for name in ("forward Euler", "Poisson splitting, order 2"):
        ys = jo.simulate(pair, y0, t1=60.0, dt=dt, ts=span, solver=solvers[name]).ys
        left.plot(ys[:, 0], ys[:, 1], color=colors[name], linewidth=1.2)
    left.set(xlabel="$y_1$", ylabel="$y_2$", aspect="equal", title="one start, until t = 60")
    for name, values in energies.items():
        worst = jnp.maximum.accumulate(jnp.abs(values / energy - 1))
        right.loglog(ts, worst, color=colors[name], label=name)
    right.loglog(ts, theory / energy - 1, color="black", linestyle=":", label="theory for Euler")
    right.set(xlabel="time t", ylabel="largest relative energy error so far", title=f"energy, dt = {dt:g}")
    right.set_ylim(1e-11, 1e3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
if not quick:
    figure.savefig("pictures/euler_against_splitting.png", dpi=150, facecolor="white")
plt.show()

# %% [markdown]
# The hand-written loop that most scripts contain is in the package too, as the independent reference. It is the same
# Euler method:

# %%
loop_ts, loop_ys = jo.euler_loop(pair, y0, dt, 1000)
engine = jo.simulate(pair, y0, t1=100.0, dt=dt, solver=jo.ForwardEuler(), save_every=1)
print(f"largest difference between the loop and the engine: {jnp.abs(loop_ys - engine.ys).max():.1e}")

# %% [markdown]
# ## Many members at once
#
# Starts and networks may have any leading batch axes. Here 64 random networks of 8 neurons, each from 32 starts:

# %%
draws, starts = (8, 4) if quick else (64, 32)
keys = jax.random.split(jax.random.key(0), draws)
networks = jax.vmap(lambda key: jo.CurrentRNN(jo.weights.DenseSkew.random(key, 8)))(keys)
jo.simulate(
    networks,
    0.5 * jax.random.normal(jax.random.key(1), (starts, 8)),
    t1=200.0,
    dt=0.1,
    pairing="product",
    reducers=(jo.EnergyDrift(), jo.Norms(), jo.Crossings()),
)

# %% [markdown]
# ## What the activation has to do with it
#
# The energy is conserved for every activation; oddness is not needed. What matters is whether the level sets of
# $H$ are bounded. `check_activation` measures that:

# %%
for activation in (jo.Tanh(), jo.RectifiedTanh(), jo.ELU()):
    print(jo.check_activation(activation).verdict)
