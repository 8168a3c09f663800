"""Adaptive steps with what is built on PyTorch. Both give the last of the times only."""

from typing import Any

import numpy as np

from .euler_loops import torch_parts, torch_product
from .problems import Problem
from .runners import Runner


def by_torchdiffeq(problem: Problem) -> Runner:
    """`odeint` with "dopri5", its default: one step size for all members, by the norm of all of them together."""
    import torchdiffeq

    torch, matrix, starts = torch_parts(problem)
    count = 0

    def velocity(t: Any, y: Any) -> Any:
        nonlocal count
        count += 1
        return torch_product(torch, matrix, torch.tanh(y))

    def run(rtol: float, ts: np.ndarray) -> tuple[Any, Any]:
        nonlocal count
        count = 0
        with torch.inference_mode():
            times = torch.tensor([0.0, float(ts[-1])], dtype=starts.dtype)
            ends = torchdiffeq.odeint(velocity, starts, times, rtol=rtol, atol=rtol, method="dopri5")[-1]
        return ends[:, None], count / 6

    return run


def by_torchode(problem: Problem) -> Runner:
    """Its Tsit5 with a step size for each member, an integral controller as in its README."""
    import torchode

    torch, matrix, starts = torch_parts(problem)
    term = torchode.ODETerm(lambda t, y: torch_product(torch, matrix, torch.tanh(y)), with_stats=False)
    begin = torch.zeros_like(starts[:, 0])

    def run(rtol: float, ts: np.ndarray) -> tuple[Any, Any]:
        wanted = torchode.InitialValueProblem(starts, t_start=begin, t_end=begin + float(ts[-1]))
        controller = torchode.IntegralController(atol=rtol, rtol=rtol, term=term)
        solver = torchode.AutoDiffAdjoint(torchode.Tsit5(term=term), controller)
        with torch.no_grad():
            solution = solver.solve(wanted)
        return solution.ys[:, -1:], solution.stats["n_steps"].numpy()

    return run
