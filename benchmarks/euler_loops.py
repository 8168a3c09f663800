"""Forward Euler with the libraries that take the steps one by one: NumPy, PyTorch and what is built on it, lyapax.

Each function takes a problem, dt and a number of steps, and gives a function without arguments that returns the final
states (members, n). Constants (dt W, other layouts) are made before the clock starts.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from .problems import Problem

Run: TypeAlias = Callable[[], Any]

COLUMNS_UP_TO = 8
"""With a W each: up to this n a sum of columns with the members last is faster, beyond products of each member."""


def by_numpy(problem: Problem, dt: float, num_steps: int) -> Run:
    """Nothing allocated in the loop; members last, except where each member has a large W."""
    scaled = problem.matrix * problem.matrix.dtype.type(dt)
    by_columns = problem.is_own and problem.n <= COLUMNS_UP_TO
    if by_columns:
        scaled = np.ascontiguousarray(np.moveaxis(scaled, 0, -1))
    first = problem.is_own and not by_columns
    starts = problem.starts if first else np.ascontiguousarray(problem.starts.T)

    def run() -> np.ndarray:
        y, (active, change, column) = starts.copy(), np.empty((3, *starts.shape), starts.dtype)
        for _ in range(num_steps):
            np.tanh(y, out=active)
            if by_columns:
                # The sum first: added to y one by one, float32 loses a digit.
                np.multiply(scaled[:, 0], active[0], out=change)
                for j in range(1, problem.n):
                    np.multiply(scaled[:, j], active[j], out=column)
                    change += column
            elif first:
                np.matmul(scaled, active[:, :, None], out=change[:, :, None])
            else:
                np.matmul(scaled, active, out=change)
            y += change
        return y if first else y.T

    return run


def by_torch(problem: Problem, dt: float, num_steps: int) -> Run:
    """The line that people write."""
    torch, matrix, starts = torch_parts(problem)

    def run() -> Any:
        with torch.inference_mode():
            y = starts
            for _ in range(num_steps):
                y = y + dt * torch_product(torch, matrix, torch.tanh(y))
            return y

    return run


def by_torch_in_place(problem: Problem, dt: float, num_steps: int) -> Run:
    """The fastest that we found: members last, nothing allocated in the loop, one fused operation for the product."""
    torch, matrix, starts = torch_parts(problem)
    scaled, turned = matrix * dt, starts.T.contiguous()
    if problem.is_own:
        scaled = torch.movedim(scaled, 0, -1).contiguous()

    def run() -> Any:
        with torch.inference_mode():
            y, active, change = turned.clone(), torch.empty_like(turned), torch.empty_like(turned)
            for _ in range(num_steps):
                torch.tanh(y, out=active)
                if problem.is_own:
                    torch.mul(scaled[:, 0], active[0], out=change)
                    for j in range(1, problem.n):
                        change.addcmul_(scaled[:, j], active[j])
                    y += change
                else:
                    y.addmm_(scaled, active)
            return y.T

    return run


def by_torchdiffeq(problem: Problem, dt: float, num_steps: int) -> Run:
    """`odeint` with method "euler"."""
    import torchdiffeq

    torch, matrix, starts = torch_parts(problem)
    times = torch.tensor([0.0, dt * num_steps], dtype=starts.dtype)

    def velocity(t: Any, y: Any) -> Any:
        return torch_product(torch, matrix, torch.tanh(y))

    def run() -> Any:
        with torch.inference_mode():
            return torchdiffeq.odeint(velocity, starts, times, method="euler", options={"step_size": dt})[-1]

    return run


def by_torchode(problem: Problem, dt: float, num_steps: int) -> Run:
    """Its Euler with a fixed step, all members side by side."""
    import torchode

    torch, matrix, starts = torch_parts(problem)
    term = torchode.ODETerm(lambda t, y: torch_product(torch, matrix, torch.tanh(y)), with_stats=False)
    solver = torchode.AutoDiffAdjoint(torchode.Euler(term=term), torchode.FixedStepController())
    begin, sizes = torch.zeros_like(starts[:, 0]), torch.full_like(starts[:, 0], dt)
    wanted = torchode.InitialValueProblem(starts, t_start=begin, t_end=begin + dt * num_steps)

    def run() -> Any:
        with torch.no_grad():  # it writes into views, which inference mode forbids
            return solver.solve(wanted, dt0=sizes).ys[:, -1]

    return run


def by_lyapax(problem: Problem, dt: float, num_steps: int) -> Run:
    """Its sweep over parameters, here the weights, with all but the last state dropped; one jit around it."""
    import jax
    import jax.numpy as jnp
    from lyapax.integrators import euler_step
    from lyapax.sweep import sweep_trajectory

    starts, matrix = jnp.asarray(problem.starts), jnp.asarray(problem.matrix)

    @jax.jit
    def sweep(matrix: Any, starts: Any) -> Any:
        def step(y: Any, parameters: Any) -> Any:
            own = parameters["W"] if problem.is_own else matrix
            return euler_step(lambda y: own @ jnp.tanh(y), dt)(y)

        swept = {"W": matrix} if problem.is_own else {"number": jnp.arange(len(starts))}
        _, states = sweep_trajectory(step, starts[0], swept, dt, num_steps, decimate=num_steps, state0_batch=starts)
        return states[:, -1]

    return lambda: sweep(matrix, starts)


def torch_parts(problem: Problem) -> tuple[Any, Any, Any]:
    """The module, held to one thread, and W and the starts as its tensors."""
    import torch

    torch.set_num_threads(1)
    return torch, torch.from_numpy(problem.matrix), torch.from_numpy(problem.starts)


def torch_product(torch: Any, matrix: Any, active: Any) -> Any:
    """W sigma(y) of all members."""
    return active @ matrix.T if matrix.ndim == 2 else torch.einsum("mij,mj->mi", matrix, active)
