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
# # Choose a solver
#
# Every solver is right if its steps are small enough. They differ in what is wrong while steps are as large as one can
# afford: the trajectory, the energy, or the kind of motion. In short:
#
# | the question | the solver |
# |---|---|
# | Which of many networks keep oscillating? | `PoissonSplitting(2)`, the default; $\Delta t\,\lVert W\rVert \le 0.25$ |
# | Energy, period, exponents over long times | `PoissonSplitting(4)` or `(6)`; $\Delta t\,\lVert W\rVert \le 0.6$ |
# | A trajectory to many digits, in steps as long as it allows | `Taylor()` with `rtol=...` |
# | The same for a long time, and the energy to the last digit | `EnergyProjection(Taylor())` with `rtol=...` |
# | The energy to the last digit at any step, tanh | `PairSplitting()`; for $n = 2$ it is the solution itself |
# | The same for other activations, or hidden skewness | `DiscreteGradient()`, implicit |
# | Gradients through very many steps | `PoissonSplitting(2)` with `adjoint=jo.Reversible()` |
# | More than $10^5$ steps in float32 | `PoissonSplitting(2, compensated=True)` |
# | A way back to the very same bits, in chaos too | `PoissonSplitting(2, lattice=True)` |
# | What a script with a loop would have got | `jo.euler_loop`, `jo.ForwardEuler()` |
#
# The rest of this notebook shows why, on one random network of eight neurons.

# %%
import os

import diffrax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxosc as jo

jax.config.update("jax_enable_x64", True)
quick = bool(os.environ.get("JAXOSC_QUICK"))  # a short run for continuous integration

weight = jo.weights.DenseSkew.random(jax.random.key(3), 8)
weight = weight.scaled(1 / jnp.linalg.norm(weight.matrix(), 2))  # spectral norm 1: the step size is dt |W|
network = jo.CurrentRNN(weight, jo.Tanh())
starts = jax.random.normal(jax.random.key(4), (4 if quick else 16, 8))

# %% [markdown]
# ## The same work for all
#
# What costs time is evaluating $\sigma$ and multiplying by $W$. Here each solver gets the step size at which it does
# that about 32 times in a unit of time (a plane that `PairSplitting` turns counts as one evaluation for each of its two
# neurons).

# %%
solvers = {  # solver, evaluations in a step
    "forward Euler": (jo.ForwardEuler(), 1),
    "Tsit5": (diffrax.Tsit5(), 6),
    "Dopri8": (diffrax.Dopri8(), 13),
    "projected Dopri8": (jo.solvers.EnergyProjection(diffrax.Dopri8()), 15),
    "PoissonSplitting(2)": (jo.solvers.PoissonSplitting(2), 2),
    "PoissonSplitting(4)": (jo.solvers.PoissonSplitting(4), 12),
    "PoissonSplitting(6)": (jo.solvers.PoissonSplitting(6), 18),
    "PairSplitting": (jo.solvers.PairSplitting(), 13),
}
t1 = 100.0 if quick else 10_000.0


def largest_error_so_far(energies):
    """The largest relative energy error until each time, the median over members."""
    errors = jnp.abs(energies / network.energy(starts)[:, None] - 1)
    return jnp.median(jnp.maximum.accumulate(errors, axis=1), axis=0)


errors = {}
for name, (solver, evaluations) in solvers.items():
    dt = evaluations / 32
    ts = dt * np.unique(np.round(np.geomspace(1, t1, 200) / dt).clip(1))  # on the steps: between them one interpolates
    run = jo.simulate(network, starts, t1=ts[-1], dt=dt, ts=ts, solver=solver)
    errors[name] = ts, largest_error_so_far(network.energy(run.ys))
    print(f"{name:<20} dt = {dt:<7.4g} largest energy error until t = {t1:g}: {errors[name][1][-1]:.1e}")

# %%
colors = dict(
    zip(solvers, ("#D55E00", "#CC79A7", "#E69F00", "#A65E2E", "#0072B2", "#009E73", "#000000", "#56B4E9"), strict=True)
)
with jo.plotting.style():
    figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    for name, (ts, values) in errors.items():
        dashes = "--" if name in ("forward Euler", "Tsit5", "Dopri8") else "-"
        axes.loglog(ts, jnp.maximum(values, 1e-16), dashes, color=colors[name], label=name)
    axes.set(xlabel="time t", ylabel="largest relative energy error so far", title="equal work, n = 8")
    axes.grid(True)
    figure.legend(loc="outside right center")
plt.show()

# %% [markdown]
# The dashed ones drift. Tsit5 and Dopri8 lose energy steadily: ten times the time, ten times the error; Euler gains it,
# later more slowly. The splittings settle, at a level that order and step size decide. `PairSplitting` keeps the energy
# itself, but for the random walk of its roundings; the projection does not even walk, as each of its steps ends at the
# energy of the start.
#
# ## The energy is not the trajectory
#
# Over a short time the comparison comes out otherwise. Against work, the error of the state at t = 50 and that of the
# energy until then:

# %%
t_short, truth_dt = 50.0, 0.02
truth = jo.simulate(network, starts, t1=t_short, dt=truth_dt, solver=jo.solvers.PoissonSplitting(8)).ys[:, 0]
shares = (2.0, 1.0, 0.5) if quick else (4.0, 2.0, 1.0, 0.5)  # of the work above: 1/share
found = {}
for name, (solver, evaluations) in solvers.items():
    for share in shares:
        dt = share * evaluations / 32
        if dt > 1.5:  # beyond it the methods of high order fall apart
            continue
        run = jo.simulate(network, starts, t1=t_short, dt=dt, solver=solver)
        state = jnp.median(jnp.abs(run.ys[:, 0] - truth).max(axis=-1))
        energy = jnp.median(jnp.abs(run.energy_drift))
        found.setdefault(name, []).append((evaluations / float(run.stats["dt"]), float(state), float(energy)))

# Taylor series choose their steps: a tolerance asks for an order, and an order of a step costs an evaluation.
by_tolerance = {"Taylor": lambda taylor: taylor, "projected Taylor": jo.solvers.EnergyProjection}
for name, wrapped in by_tolerance.items():
    for rtol, order in ((1e-3, 8), (1e-6, 8), (1e-9, 12), (1e-12, 15)):
        run = jo.simulate(network, starts, t1=t_short, solver=wrapped(jo.solvers.Taylor(order)), rtol=rtol)
        evaluations = order * float(run.stats["num_steps"].mean()) / t_short
        state = jnp.median(jnp.abs(run.ys[:, 0] - truth).max(axis=-1))
        found.setdefault(name, []).append((evaluations, float(state), float(jnp.median(jnp.abs(run.energy_drift)))))
colors |= {"Taylor": "#6A3D9A", "projected Taylor": "#8A8A00"}

with jo.plotting.style():
    figure, panels = plt.subplots(1, 2, figsize=(9.6, 4.0), layout="constrained", sharex=True)
    for name, points in found.items():
        dashes = "--" if name in ("forward Euler", "Tsit5", "Dopri8") else "-"
        work, *both = np.array(points).T
        for axes, values in zip(panels, both, strict=True):
            axes.loglog(work, np.maximum(values, 1e-16), dashes, marker="o", color=colors[name], label=name)
    panels[0].set(ylabel="largest error of a neuron", title=f"state at t = {t_short:g}")
    panels[1].set(ylabel="relative energy error", title=f"energy at t = {t_short:g}")
    for axes in panels:
        axes.set_xlabel("evaluations of the activation per unit of time")
        axes.set_xticks([8, 16, 32, 64], labels=["8", "16", "32", "64"])
        axes.minorticks_off()
        axes.grid(True)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
plt.show()

# %% [markdown]
# For the state, Dopri8 is the best of them at this length down to errors of about 1e-9: it needs 13 evaluations for
# order 8, where a splitting needs 34. Beyond, Taylor series are, whose order grows with what is asked of them; an
# evaluation is then a product with W and a convolution, and no tanh. The projection costs two evaluations more a step,
# and the state is the better for it. `PairSplitting` has the energy
# right to rounding and a state no better than any method of order 2: a right energy tells nothing about the phase. At
# n = 2 there is one plane, and the method is exact:

# %%
pair = jo.CurrentRNN(jo.weights.RotationBlocks(jnp.array([1.0])), jo.Tanh())
y0 = jnp.array([1.5, 0.0])
exact = jo.oracles.pair_solution(1000.0, y0, 1.0)
for solver in (jo.solvers.PairSplitting(), jo.solvers.PoissonSplitting(2), diffrax.Dopri8()):
    run = jo.simulate(pair, y0, t1=1000.0, dt=1.0, solver=solver)
    distance = jnp.abs(run.ys[0] - exact).max()
    print(f"{solver!r:<40.40} error of the state at t = 1000 with dt = 1: {distance:.1e}")

# %% [markdown]
# ## Ask for a verdict
#
# `jo.audit` runs one network with one solver and says what is kept, and by which law the rest is lost:

# %%
for name, dt in (("forward Euler", 0.1), ("Tsit5", 0.5), ("PoissonSplitting(2)", 0.1), ("PairSplitting", 0.5)):
    report = jo.audit(
        network, starts[0], solvers[name][0], dt=dt, t1=200.0 if quick else 5000.0, invariants=("energy", "volume")
    )
    print(report, end="\n\n")

# %% [markdown]
# ## And the time?
#
# Work is not time: an evaluation inside a sweep depends on the one before, one inside a Runge-Kutta stage does not.
# `python -m benchmarks.work_precision` measures both, for these solvers and for those of Diffrax, SciPy and heyoka:
#
# ![Error against time and work for n = 2, 8, 32, 128.](pictures/work_precision.png)
