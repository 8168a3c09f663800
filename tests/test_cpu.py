"""`configure_cpu`: what it sets, when it refuses, and that results stay those of other settings, to rounding."""

import json

import jax
import numpy as np
import pytest

import jaxosc as jo
from jaxosc._cpu import with_settings

RUN = """
import json, sys
import jax
import jaxosc as jo

jax.config.update("jax_enable_x64", True)
if sys.argv[1] != "plain":
    jo.configure_cpu(devices=int(sys.argv[1]))
network = jo.CurrentRNN(jo.weights.DenseSkew.random(jax.random.key(0), 3))
starts = jax.random.normal(jax.random.key(1), (300, 3))
some = starts[:7]
found = [jo.simulate(network, y0, t1=20.0, dt=0.1).ys[:7].tolist() for y0 in (starts, some)]
message = ""
try:
    jo.configure_cpu()
except jo.JaxoscError as error:
    message = str(error)
# Weights that were put on a device draw the run there.
there = jax.devices()[-1]
placed = jo.simulate(jax.device_put(network, there), starts, t1=1.0, dt=0.1, solver=jo.ForwardEuler())
assert placed.ys.devices() == {there}
print(json.dumps(dict(found=found, devices=len(jax.devices()), message=message)))
"""


def test_results_are_the_same_to_rounding_and_to_the_bit_in_other_company(fresh_python):
    answers = {}
    for how in ("plain", "2"):
        done = fresh_python("-c", RUN, how)
        assert done.returncode == 0, done.stderr
        answers[how] = json.loads(done.stdout)
        many, few = answers[how]["found"]
        assert many == few
        assert "Got configure_cpu() after JAX has computed something, expected it before" in answers[how]["message"]
    assert (answers["plain"]["devices"], answers["2"]["devices"]) == (1, 2)
    assert np.abs(np.subtract(answers["plain"]["found"], answers["2"]["found"])).max() < 1e-13


ACTIVATIONS = """
import json
import jax
import numpy as np
import scipy.special
import jaxosc as jo

jax.config.update("jax_enable_x64", True)
jo.configure_cpu()
true = {
    "Tanh": np.tanh, "Arctan": np.arctan, "Erf": scipy.special.erf,
    "Softsign": lambda y: y / (1 + abs(y)), "Algebraic": lambda y: y / np.sqrt(1 + y * y),
    "Sigmoid": scipy.special.expit, "ELU": lambda y: np.where(y > 0, y, np.expm1(np.minimum(y, 0))),
}
off = {}
for name, function in true.items():
    for dtype in (np.float32, np.float64):
        y = np.linspace(-5, 5, 1000).astype(dtype)
        found = np.asarray(jax.jit(getattr(jo, name)())(y), np.float64)
        error = np.abs(found - function(y.astype(np.float64))).max()
        off[f"{name}, {dtype.__name__}"] = float(error / np.finfo(dtype).eps)
print(json.dumps(off))
"""


def test_activations_are_right_with_the_settings(fresh_python):
    """XLA's arctan was off by 1 and more with one of them, among many numbers and not among few."""
    done = fresh_python("-c", ACTIVATIONS)
    assert done.returncode == 0, done.stderr
    off = json.loads(done.stdout)
    assert len(off) == 14
    # A few roundings of values up to 5.
    assert {name: error for name, error in off.items() if error > 20} == {}


def test_what_the_user_chose_stays():
    loops = "xla_cpu_small_while_loop_byte_threshold"
    wide = "--xla_cpu_prefer_vector_width=512 " if jax.__version_info__ >= (0, 12) else ""
    assert with_settings("") == f"{wide}--xla_backend_extra_options={loops}=16000000"
    chosen = f"--xla_cpu_prefer_vector_width=256 --xla_backend_extra_options=a=b,{loops}=5"
    assert with_settings(chosen) == chosen
    # A second list of extra options would replace the first.
    assert with_settings("--xla_backend_extra_options=a=b").split()[0] == (
        f"--xla_backend_extra_options=a=b,{loops}=16000000"
    )
    assert with_settings(with_settings("--x")) == with_settings("--x")


def test_refuses_no_devices():
    with pytest.raises(jo.JaxoscError, match=r"Got configure_cpu\(devices=0\), expected a whole number >= 1"):
        jo.configure_cpu(devices=0)
