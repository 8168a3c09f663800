"""Compile the kernels for an NVIDIA H100 and a TPU v5e on a machine that has neither, and look at what came out.

    python .ci/accelerators.py SCRATCH_FOLDER

makes one virtual environment for each compiler, since they do not get along with each other or with the tests', and
runs `accelerators.py check tpu` and `check cuda` there. A compiler that cannot be installed is left out, with the
reason. Nothing is run on an accelerator, so nothing is said about its time but an estimate from counted instructions.
"""

import functools
import importlib.metadata
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NEURONS = (2, 8, 32)
LANES = 4096
SOLVERS = ("Euler", "splitting 2", "splitting 4")
COLLECTIVES = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
INSTALL_SECONDS = 240


def wheels(platform: str, jax: str) -> list[str]:
    """What to install for a compiler, with the jax that the tests ran with."""
    needed = ["equinox>=0.13.2", "diffrax>=0.7.2"]  # what `import jaxosc` loads
    if platform == "tpu":
        return [f"jax[tpu]=={jax}", *needed]
    # Without the CUDA libraries, which only a run would need.
    return [f"jax=={jax}", f"jax-cuda12-plugin=={jax}", f"jax-cuda12-pjrt=={jax}", "absl-py", *needed]


def main(scratch: Path) -> int:
    """Both platforms; 1 if a check failed."""
    scratch.mkdir(parents=True, exist_ok=True)
    failed = [platform for platform in ("tpu", "cuda") if not checked(platform, scratch / f"venv-{platform}")]
    return 1 if failed else 0


def checked(platform: str, environment: Path) -> bool:
    """Whether the checks of a platform pass, or cannot be made."""
    begin = time.monotonic()
    python = environment / "bin" / "python"
    try:
        subprocess.run([sys.executable, "-m", "venv", environment], check=True, capture_output=True, text=True)
        pip = [str(python), "-m", "pip", "install", "-q", *wheels(platform, importlib.metadata.version("jax"))]
        subprocess.run(pip, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        search = ptxas_path(python) if platform == "cuda" else os.environ["PATH"]
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        print(f"{platform}: skipped, the compiler cannot be installed: {last_line(error.stderr)}")
        return True
    if search is None:
        print(f"{platform}: skipped, there is no ptxas, neither on PATH nor in a wheel")
        return True
    print(f"{platform}: installed in {time.monotonic() - begin:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as dump:
        run = subprocess.run(
            [python, HERE / "accelerators.py", "check", platform, dump],
            env={**os.environ, **settings(platform, dump), "PATH": search, "PYTHONPATH": str(HERE.parent)},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    if run.returncode:
        print(run.stderr[-5000:], file=sys.stderr)
    shutil.rmtree(environment)
    return run.returncode == 0


def last_line(text: str | bytes | None) -> str:
    """The last line of a complaint."""
    text = text.decode() if isinstance(text, bytes) else text
    return (text or "no answer in time").strip().splitlines()[-1]


def ptxas_path(python: Path) -> str | None:
    """A search path on which `ptxas` is, None if it is nowhere to be had."""
    if shutil.which("ptxas"):
        return os.environ["PATH"]
    pip = [str(python), "-m", "pip", "install", "-q", "nvidia-cuda-nvcc-cu12"]
    subprocess.run(pip, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    found = next(python.parent.parent.rglob("bin/ptxas"), None)
    return None if found is None else os.pathsep.join([str(found.parent), os.environ["PATH"]])


def settings(platform: str, dump: str) -> dict[str, str]:
    """What the compilers read from the environment before jax is imported."""
    if platform == "cuda":
        flags = f"--xla_dump_to={dump} --xla_dump_hlo_as_text"
        return {"JAX_PLATFORMS": "cpu", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1", "XLA_FLAGS": flags}
    return {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
    }


def check(platform: str, dump: Path) -> int:
    """Compile every case and print a table; 1 if one breaks a promise."""
    complaints: list[str] = []
    print_case = print_cuda_case if platform == "cuda" else print_tpu_case
    for n, solver, own in itertools.product(NEURONS, SOLVERS, (False, True)):
        begin = time.monotonic()
        compiled = compiled_case(platform, n, solver, own)
        name = f"{n:2d} {solver:11s} {'own' if own else 'shared':6s}"
        line, complaint = print_case(compiled, dump, n, solver)
        print(f"  {name} {line}  [{time.monotonic() - begin:.1f} s]", flush=True)
        complaints += [f"{name}: {complaint}"] if complaint else []
    print("\n".join(complaints) or f"{platform}: as promised")
    return 1 if complaints else 0


def compiled_case(platform: str, n: int, solver: str, own: bool) -> Any:
    """The compiled program of a run of `LANES` lanes with all reducers, on four devices of a TPU or one GPU."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    import jaxosc as jo
    from jaxosc.simulate.kernels import has_kernel, run_lanes_in_kernel
    from jaxosc.solvers import lanes_of

    methods = {"Euler": jo.ForwardEuler(), **{f"splitting {k}": jo.solvers.PoissonSplitting(k) for k in (2, 4)}}
    method, reducers = methods[solver], (jo.EnergyDrift(), jo.Norms(), jo.Crossings())

    def build(key: Any) -> Any:
        weights = jax.vmap(lambda key: jo.weights.DenseSkew.random(key, n))(jax.random.split(key, LANES))
        return lanes_of(jo.CurrentRNN(weights if own else jo.weights.DenseSkew.random(key, n)))

    def run(lanes: Any, starts: Any, dt: Any, num_steps: Any) -> Any:
        options = dict(t0=0.0, dt=dt, num_steps=num_steps, platform=platform)
        return run_lanes_in_kernel(lanes, starts, method, reducers, **options)

    lanes = eqx.filter_eval_shape(build, jax.random.key(0))
    starts: Any = jax.ShapeDtypeStruct((n, LANES), jnp.float32)  # has_kernel asks an array for no more than that
    if not has_kernel(lanes, starts, method, reducers, platform):
        raise AssertionError(f"has_kernel says no to n = {n}, {solver}")
    arguments = (lanes, starts, jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32))
    program = on_one_gpu(run) if platform == "cuda" else on_four_tpus(run, arguments)
    return program.trace(*arguments).lower(lowering_platforms=(platform,)).compile()


def on_one_gpu(run: Any) -> Any:
    """`run`, jitted for one H100."""
    import jax
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    text = (HERE / "h100.textproto").read_text()
    chip = topologies.get_topology_desc(platform="cuda", topology_name="h100", target_config=text, topology="1x1x1")
    placed = NamedSharding(Mesh(np.array(chip.devices), ("lanes",)), PartitionSpec())
    return jax.jit(run, in_shardings=placed, out_shardings=placed)


def on_four_tpus(run: Any, arguments: Any) -> Any:
    """`run`, jitted for four chips of a TPU v5e, each with a quarter of the lanes."""
    import jax
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    chip = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    mesh = Mesh(np.array(chip.devices).reshape(-1), ("lanes",))

    def split(leaf: Any) -> PartitionSpec:
        own = leaf.shape[-1:] == (LANES,)
        return PartitionSpec(*(None,) * (leaf.ndim - 1), "lanes") if own else PartitionSpec()

    def placed(specs: Any) -> Any:
        return jax.tree.map(functools.partial(NamedSharding, mesh), specs, is_leaf=is_spec)

    def is_spec(leaf: Any) -> bool:
        return isinstance(leaf, PartitionSpec)

    ins = jax.tree.map(split, arguments)
    outs = jax.tree.map(split, jax.eval_shape(run, *arguments))
    # The kernel says nothing of how its results vary over the mesh, so this cannot be checked.
    mapped = jax.shard_map(run, mesh=mesh, in_specs=ins, out_specs=outs, check_vma=False)
    return jax.jit(mapped, in_shardings=placed(ins), out_shardings=placed(outs))


def memory(compiled: Any) -> str:
    """Bytes of a program on one device."""
    stated = compiled.memory_analysis()
    parts = stated.argument_size_in_bytes, stated.output_size_in_bytes, stated.temp_size_in_bytes
    return "memory in/out/temporary {:.0f}/{:.0f}/{:.0f} KiB".format(*(part / 1024 for part in parts))


def print_tpu_case(compiled: Any, dump: Path, n: int, solver: str) -> tuple[str, str]:
    """The line of a case, and a complaint if there is one."""
    text = compiled.as_text()
    collectives, kernels = len(re.findall(COLLECTIVES, text)), text.count("tpu_custom_call")
    line = f"kernels {kernels}, collectives {collectives}, {memory(compiled)}"
    return line, "" if kernels == 1 and collectives == 0 else "expected one kernel and no collectives"


def print_cuda_case(compiled: Any, dump: Path, n: int, solver: str) -> tuple[str, str]:
    """The line of a case, and a complaint if there is one."""
    from ptx_cost import step_counts

    written = sorted(dump.glob("module*.ptx"), key=os.path.getmtime)
    source = [file for file in written if ".entry fixed_steps" in file.read_text()][-1]
    ptx = source.read_text()
    command = ["ptxas", "-v", "-arch=sm_90a", str(source), "-o", "/dev/null"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = number_in(said, r"Used (\d+) registers")
    stores, loads = (number_in(said, rf"(\d+) bytes spill {kind}") for kind in ("stores", "loads"))
    collectives = len(re.findall(COLLECTIVES, compiled.as_text()))
    line = f"registers {registers}, spilled bytes {stores + loads}, collectives {collectives}, {memory(compiled)}"
    counts = step_counts(ptx, inner_turns(n, solver))
    neurons = neurons_per_thread(n)
    line += "\n      estimate, nothing was run; PTX per neuron-step: " + ", ".join(
        f"{what} {value / neurons:.1f}"
        for what, value in (
            ("loads", counts.loads),
            ("FMAs", counts.fmas),
            ("products and sums", counts.products_and_sums),
            ("special functions", counts.special),
            ("others", counts.others),
        )
    )
    # 132 multiprocessors issue four instructions for 32 threads each in a cycle of 1/1.98 ns at best.
    line += f"; {counts.total / neurons / (132 * 128 * 1.98) * 1e3:.2f} ps at full issue"
    return line, "" if stores == loads == collectives == 0 else "expected no spills and no collectives"


def number_in(said: str, pattern: str) -> int:
    """The number at this place of what a compiler said."""
    found = re.search(pattern, said)
    if found is None:
        raise AssertionError(f"Got no {pattern!r} in what the compiler said: {said}")
    return int(found[1])


def neurons_per_thread(n: int) -> float:
    """How many neurons of how many lanes a thread takes through a step."""
    from jaxosc.simulate.kernels import PLATFORMS

    chip = PLATFORMS["cuda"]
    if n <= chip.rows_up_to:
        return n
    padded = 1 << (n - 1).bit_length()
    return n * chip.tile_of(padded, "float32")[0] / 32


def inner_turns(n: int, solver: str) -> int:
    """How often the loop inside of a step turns, where there is one."""
    from jaxosc.simulate.kernels import PLATFORMS

    if n <= PLATFORMS["cuda"].rows_up_to:
        return 6  # pairs of half-sweeps in order 4, which is the only one with a loop
    # Columns of the product; visits of neurons, of which those at the turning points are joined.
    sweeps = {"Euler": 1, "splitting 2": 2, "splitting 4": 12}[solver]
    return sweeps * n - (sweeps - 1)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[0] == "check":
        sys.exit(check(arguments[1], Path(arguments[2])))
    sys.exit(main(Path(arguments[0])))
