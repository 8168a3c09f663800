"""What usually continues a series by itself: autoregression, an echo state network, an LSTM.

Each is a function of a series of deviation one that gives `continued(count)`, the next so many values without further
data. What has to be chosen (lags; spectral radius, leak and ridge) is chosen by continuing the first four fifths of the
series over the last one.
"""

import itertools
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

Continue = Callable[[int], np.ndarray]

HELD_BACK = 0.2
"""Of the training series, to choose by."""

RESERVOIR = 200
HIDDEN = 32
LSTM_STEPS, LSTM_RATE = 1500, 5e-3


def autoregression(series: np.ndarray, period: float) -> Continue:
    """AR with a constant (statsmodels AutoReg), of half a period to two periods of lags."""
    most = len(series) // 3
    lags = sorted({max(2, min(round(share * period), most)) for share in (0.25, 0.5, 1, 1.5, 2)})
    return chosen(series, [partial(_autoregression, lags=count) for count in lags])


def _autoregression(series: np.ndarray, lags: int) -> Continue:
    from statsmodels.tsa.ar_model import AutoReg

    lags = min(lags, len(series) // 3)
    constant, *weights = np.asarray(AutoReg(series, lags, trend="c").fit().params)
    kernel = np.array(weights)[::-1]

    def continued(count: int) -> np.ndarray:
        values = np.concatenate([series[-lags:], np.zeros(count)])
        with np.errstate(over="ignore", invalid="ignore"):
            for place in range(lags, lags + count):
                values[place] = constant + kernel @ values[place - lags : place]
        return values[lags:]

    return continued


def echo_state(series: np.ndarray, period: float) -> Continue:
    """A reservoir of 200 leaky tanh units with a ridge readout, fed with its own output."""
    grid = itertools.product((0.8, 1.0, 1.2), (0.3, 1.0), (1e-6, 1e-3))
    return chosen(series, [partial(_echo_state, radius=r, leak=a, ridge=b) for r, a, b in grid])


def _echo_state(series: np.ndarray, radius: float, leak: float, ridge: float) -> Continue:
    generator = np.random.default_rng(0)
    recurrent = generator.standard_normal((RESERVOIR, RESERVOIR)) * (generator.random((RESERVOIR, RESERVOIR)) < 0.1)
    recurrent *= radius / np.abs(np.linalg.eigvals(recurrent)).max()
    inward, bias = generator.uniform(-0.5, 0.5, (2, RESERVOIR))

    def moved(state: np.ndarray, value: float) -> np.ndarray:
        return (1 - leak) * state + leak * np.tanh(recurrent @ state + inward * value + bias)

    states = [np.zeros(RESERVOIR)]
    for value in series:
        states.append(moved(states[-1], value))
    washout = min(100, len(series) // 5)
    features = np.column_stack([np.array(states[1:-1])[washout:], np.ones(len(series) - 1 - washout)])
    square = features.T @ features + ridge * len(features) * np.eye(RESERVOIR + 1)
    readout = np.linalg.solve(square, features.T @ series[washout + 1 :])

    def continued(count: int) -> np.ndarray:
        state, values = states[-1], np.zeros(count)
        for place in range(count):
            values[place] = readout[:-1] @ state + readout[-1]
            state = moved(state, values[place])
        return values

    return continued


class _Lstm(eqx.Module):
    cell: eqx.nn.LSTMCell
    readout: eqx.nn.Linear

    def __init__(self, key: Array) -> None:
        first, second = jax.random.split(key)
        self.cell = eqx.nn.LSTMCell(1, HIDDEN, key=first)
        self.readout = eqx.nn.Linear(HIDDEN, 1, key=second)

    def next(self, state: Any, value: Array) -> tuple[Any, Array]:
        """The state after `value` (), and what it expects then."""
        state = self.cell(value[None], state)
        return state, self.readout(state[0])[0]

    def told(self, series: Array) -> tuple[Any, Array]:
        """The state after the series (times,), and what was expected after each of its values."""
        return jax.lax.scan(
            lambda state, value: self.next(state, value), (jnp.zeros(HIDDEN), jnp.zeros(HIDDEN)), series
        )


def lstm(series: np.ndarray, period: float) -> Continue:
    """An LSTM of 32 units, taught to tell the next value (Adam), then fed with its own output."""
    told = jnp.asarray(series)
    model = _Lstm(jax.random.key(0))
    method = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(LSTM_RATE, LSTM_STEPS)))

    def loss(model: _Lstm) -> Array:
        return jnp.mean((model.told(told[:-1])[1] - told[1:]) ** 2)

    @eqx.filter_jit
    def taught(model: _Lstm) -> _Lstm:
        arrays, rest = eqx.partition(model, eqx.is_inexact_array)

        def step(carry: Any, _: Any) -> tuple[Any, None]:
            arrays, state = carry
            slope = jax.grad(lambda arrays: loss(eqx.combine(arrays, rest)))(arrays)
            change, state = method.update(slope, state, arrays)
            return (optax.apply_updates(arrays, change), state), None

        (arrays, _), _ = jax.lax.scan(step, (arrays, method.init(arrays)), None, length=LSTM_STEPS)
        return eqx.combine(arrays, rest)

    model = taught(model)

    def continued(count: int) -> np.ndarray:
        state, expected = model.told(told)

        def step(carry: Any, _: Any) -> tuple[Any, Array]:
            state, value = carry
            return model.next(state, value), value

        return np.asarray(jax.lax.scan(step, (state, expected[-1]), None, length=count)[1])

    return continued


def chosen(series: np.ndarray, makers: Iterable[Callable[[np.ndarray], Continue]]) -> Continue:
    """The maker whose continuation of the first part is nearest to the last one, on the whole series."""
    known = round((1 - HELD_BACK) * len(series))
    best, least = None, np.inf
    for maker in makers:
        told = maker(series[:known])(len(series) - known)
        error = float(np.mean((np.clip(told, -1e6, 1e6) - series[known:]) ** 2))
        if best is None or error < least:
            best, least = maker, error
    assert best is not None
    return best(series)
