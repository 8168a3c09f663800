"""`import jaxosc` stays light and leaves JAX's settings alone; each test looks at a fresh process."""

import json

HEAVY = (
    "xarray",
    "zarr",
    "dask",
    "distributed",
    "matplotlib",
    "pandas",
    "pydantic",
    "rich",
    "jinja2",
    "cyclopts",
    "optax",
)

LOADED = """
import json, sys
import jax, equinox, diffrax
before = set(sys.modules)
import jaxosc
print(json.dumps(sorted(set(sys.modules) - before)))
"""

SETTINGS = """
import json, os
import jax
before, variables = dict(jax.config.values), dict(os.environ)
import jaxosc
import jaxosc.sweeps, jaxosc.plotting, jaxosc.report, jaxosc.cli
after = dict(jax.config.values)
changed = sorted(name for name in after if after[name] != before.get(name, after[name]))
jax.config.update("jax_num_cpu_devices", 3)  # JAX refuses this once it has looked for devices
print(json.dumps([changed, os.environ == variables, jax.device_count("cpu")]))
"""

LAZY = """
import json, sys
import jaxosc as jo
before = [name for name in ("xarray", "matplotlib") if name in sys.modules]
jo.sweeps.Sweep, jo.plotting.stability_map, jo.report.write
print(json.dumps([before, [name for name in ("xarray", "matplotlib") if name in sys.modules], "sweeps" in dir(jo)]))
"""


def output(fresh_python, code):
    finished = fresh_python("-c", code)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_import_loads_no_heavy_library(fresh_python):
    added = output(fresh_python, LOADED)
    assert [name for name in added if name.startswith(HEAVY)] == []


def test_import_adds_few_modules_to_jax_equinox_and_diffrax(fresh_python):
    # Modules and not milliseconds: a count is the same on a busy machine. What is not ours is a stray standard module.
    added = output(fresh_python, LOADED)
    ours = [name for name in added if name.split(".")[0] == "jaxosc"]
    assert ours
    assert len(ours) < 95
    assert len(added) - len(ours) < 20, added


def test_import_changes_no_setting_and_starts_no_device(fresh_python):
    assert output(fresh_python, SETTINGS) == [[], True, 3]


def test_rooms_that_need_heavy_libraries_come_at_first_use(fresh_python):
    assert output(fresh_python, LAZY) == [[], ["xarray", "matplotlib"], True]
