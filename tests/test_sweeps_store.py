"""The store: what plain xarray finds in it, what may not be overwritten, and that chunks leave no trace in the data."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray

import jaxosc as jo
from jaxosc.sweeps import Sweep, ledger
from jaxosc.sweeps.plan import make_plan
from jaxosc.sweeps.progress import Silent
from jaxosc.sweeps.runner import MemorySink, run_into
from jaxosc.sweeps.store import Store
from jaxosc.sweeps.work import blocks

SWEEP = Sweep(
    activation=["tanh", "identity"],
    solver="euler",
    neurons=3,
    gain=[0.5, 1, 2],
    dt=[0.1, 0.2],
    leak=[0, 0.1],
    draws=5,
    ics=7,
    duration=4,
    seed=11,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store, for looking at only."""
    path = tmp_path_factory.mktemp("store") / "data"
    SWEEP.run(path, progress=False, chunk_members=40)
    return path


@pytest.fixture(scope="module")
def whole() -> xarray.Dataset:
    """The same sweep in memory, in one chunk per dt."""
    return SWEEP.run(progress=False)


def assert_bit_equal(one: xarray.Dataset, other: xarray.Dataset) -> None:
    assert set(one.data_vars) == set(other.data_vars)
    for name in one.data_vars:
        assert one[name].dtype == other[name].dtype
        assert one[name].values.tobytes() == other[name].values.tobytes(), name
    xarray.testing.assert_equal(one.coords.to_dataset(), other.coords.to_dataset())


PLAIN_XARRAY = """
import json, sys
import xarray
data = xarray.open_zarr(sys.argv[1])
assert "jaxosc" not in sys.modules and "jax" not in sys.modules
print(json.dumps({
    "dims": data.energy_drift.dims,
    "sizes": dict(data.sizes),
    "variables": {name: str(data[name].dtype) for name in data.data_vars},
    "attrs": data.attrs,
    "units": {name: data[name].attrs.get("units") for name in [*data.coords, *data.data_vars]},
    "orbit": data.orbit.attrs,
    "labels": data.activation.values.astype(str).tolist(),
    "picked": float(data.max_norm.sel(activation="tanh", dt=0.1, gain=1).mean()),
}))
"""


def test_plain_xarray_opens_the_store_without_a_warning(store: Path, fresh_python: Callable, whole: xarray.Dataset):
    done = fresh_python("-W", "error", "-c", PLAIN_XARRAY, str(store))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["dims"] == ["activation", "solver", "neurons", "gain", "dt", "leak", "draw", "ic"]
    assert found["sizes"] == dict(zip(found["dims"], [2, 1, 1, 3, 2, 2, 5, 7], strict=True))
    floats = ["energy_drift", "energy_drift_max", "max_norm", "final_norm", "period", "frequency", "period_spread"]
    expected = dict.fromkeys(floats, "float64") | {"orbit": "int8", "result": "int8", "num_steps": "int32"}
    assert found["variables"] == expected
    attrs = found["attrs"]
    assert json.loads(attrs["spec"])["gain"] == [0.5, 1, 2]
    assert attrs["spec_hash"] == SWEEP.hash
    assert {"jax", "numpy", "zarr", "python"} <= set(json.loads(attrs["versions"]))
    assert (attrs["dtype"], attrs["seed"], attrs["duration"], attrs["Conventions"]) == ("float64", 11, 4.0, "CF-1.8")
    assert attrs["matmul_precision"] == "highest"
    assert attrs["created"] <= attrs["finished"]
    assert attrs["wall_time_s"] > 0
    assert attrs["jaxosc_version"] == jo.__version__
    assert attrs["device_kind"]
    assert (found["units"]["dt"], found["units"]["frequency"]) == ("time unit", "1 / time unit")
    assert found["orbit"]["flag_values"] == list(range(7))
    assert found["orbit"]["flag_meanings"].split()[:2] == ["fixed_point", "periodic"]
    assert found["labels"] == ["tanh", "identity"]
    assert found["picked"] == pytest.approx(float(whole.max_norm.sel(activation="tanh", dt=0.1, gain=1).mean()))


def test_spec_file_of_the_store_repeats_it(store: Path):
    assert jo.sweeps.load_spec(store / "spec.toml").hash == SWEEP.hash


@pytest.mark.parametrize("chunk_members", [7, 100, 10_000])
def test_chunk_size_and_workers_change_no_bit(chunk_members: int, whole: xarray.Dataset, tmp_path: Path):
    assert_bit_equal(SWEEP.run(tmp_path / "data", progress=False, chunk_members=chunk_members, workers=3), whole)


def test_single_members_as_chunks_change_no_bit():
    few = SWEEP.replace(draws=2, gain=[0.5, 1], dt=0.2)
    assert_bit_equal(few.run(progress=False, chunk_members=1), few.run(progress=False))


def test_shared_layout_does_not_depend_on_chunks_either():
    axes = dict(neurons=12, gain=[1, 2, 3], asymmetry=[0, 0.1], draws=3, ics=9)
    sweep = Sweep(solver="euler", duration=2, measures="norms", **axes)
    assert_bit_equal(sweep.run(progress=False, chunk_members=5), sweep.run(progress=False))


def test_cut_covers_every_member_once():
    for most in (1, 2, 6, 7, 13, 35, 36, 69, 70, 209, 210, 1000):
        plan = make_plan(SWEEP, chunk_members=most)
        seen = np.zeros(plan.lane_shape, int)
        for number in range(plan.chunks_per_dt):
            chunk = plan.chunk(number)
            assert chunk.members <= most
            seen[tuple(slice(*bounds) for bounds in chunk.lanes)] += 1
        assert (seen == 1).all()


@pytest.mark.parametrize("neurons", [3, 12])
def test_a_members_lane_does_not_depend_on_the_chunks(neurons: int):
    # On most machines every lane rounds alike and the tests above could not see a lane that moved.
    sweep = SWEEP.replace(neurons=neurons, asymmetry=[0, 0.1], draws=9, ics=30)

    def lanes(chunk_members: int) -> dict[tuple[int, ...], int]:
        plan = make_plan(sweep, chunk_members=chunk_members)
        names = [dim.name for dim in plan.lane_dimensions]
        found = {}
        for number in range(plan.chunks_per_dt):
            for block in blocks(plan, plan.chunk(number)):
                places = np.stack(np.broadcast_arrays(*(block.index[name] for name in names)), axis=-1)
                found |= {tuple(places[lane]): int(lane) for lane in block.used}
        return found

    expected = lanes(10_000)
    assert len(expected) == 3 * 2 * 2 * 9 * 30
    assert len(set(expected.values())) > 100
    assert lanes(7) == lanes(100) == expected


def test_running_again_computes_nothing(store: Path, whole: xarray.Dataset):
    before = (store / ledger.NAME).read_bytes()
    again = SWEEP.run(store, progress=False)
    assert (store / ledger.NAME).read_bytes() == before
    assert_bit_equal(again, whole)


def copy(store: Path, to: Path) -> Path:
    shutil.copytree(store, to)
    return to


def test_missing_chunks_and_a_torn_line_are_computed_again(store: Path, whole: xarray.Dataset, tmp_path: Path):
    path = copy(store, tmp_path / "data")
    lines = (path / ledger.NAME).read_bytes().splitlines(keepends=True)
    (path / ledger.NAME).write_bytes(b"".join(lines[:-3]) + lines[-3][: len(lines[-3]) // 2])
    missing = [json.loads(line)["chunk"] for line in lines[-3:]]
    plan = make_plan(SWEEP, chunk_members=40)
    for number in missing:  # what was not listed may be there, or in part, or wrong
        chunk = plan.chunk(number)
        Store(path, plan).write(chunk, {"max_norm": np.full(chunk.shape, 7.0)})
    found = jo.sweeps.status(path)
    assert (found.chunks - found.chunks_done, found.complete) == (3, False)
    assert "unfinished" in str(found)
    with pytest.warns(UserWarning, match="3 of .* chunks of .* are not computed"):
        jo.sweeps.load(path)
    assert_bit_equal(jo.sweeps.resume(path, progress=False), whole)
    assert jo.sweeps.status(path).complete
    assert len(ledger.entries(path)) == len(lines)


def test_status_counts(store: Path):
    found = jo.sweeps.status(store)
    assert (found.chunks_done, found.members_done) == (found.chunks, found.members)
    assert found.members == 2 * 3 * 2 * 2 * 5 * 7
    assert found.spec_hash == SWEEP.hash
    assert found.finished
    assert str(store) in str(found)


def test_another_sweeps_store_is_refused_with_both_hashes(store: Path):
    other = SWEEP.replace(seed=12)
    words = f"spec hash {SWEEP.hash[:12]}, this sweep's is {other.hash[:12]}"
    with pytest.raises(jo.JaxoscError, match=words):
        other.run(store, progress=False)


def test_foreign_files_are_refused(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("42")
    with pytest.raises(jo.JaxoscError, match=r"holds other files \(thesis.tex\)"):
        SWEEP.run(tmp_path, progress=False)
    with pytest.raises(jo.JaxoscError, match=r"which is the file thesis\.tex"):
        SWEEP.run(tmp_path / "thesis.tex", progress=False)
    with pytest.raises(jo.JaxoscError, match=r"which lies below the file thesis\.tex"):
        SWEEP.run(tmp_path / "thesis.tex" / "below", progress=False)
    assert (tmp_path / "thesis.tex").read_text() == "42"
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_directory_is_taken(tmp_path: Path):
    small = Sweep(solver="euler", neurons=2, draws=1, ics=1, duration=1, measures="norms")
    (tmp_path / "data").mkdir()
    assert small.run(tmp_path / "data", progress=False).attrs["finished"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_unwritable_places_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Root may write everywhere, so the system's refusal is played.
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(jo.JaxoscError, match=r"cannot be used \(Permission denied\), expected a writable place"):
        SWEEP.run(tmp_path / "data", progress=False)


def test_half_written_store_is_refused(store: Path, tmp_path: Path):
    path = copy(store, tmp_path / "data")
    (path / ledger.NAME).unlink()
    for use in (jo.sweeps.status, jo.sweeps.load, jo.sweeps.resume, lambda path: SWEEP.run(path, progress=False)):
        with pytest.raises(jo.JaxoscError, match=r"half-written store in .* \(ledger.jsonl is missing\)"):
            use(path)
    for use in (jo.sweeps.status, jo.sweeps.load, jo.sweeps.resume):
        with pytest.raises(jo.JaxoscError, match="where there is no store"):
            use(tmp_path / "nowhere")


def test_changed_files_are_not_continued(tmp_path: Path):
    mine = tmp_path / "mine.py"
    mine.write_text("import jax.numpy as jnp\nsofter = jnp.arctan\n")
    settings = dict(neurons=2, draws=1, ics=1, duration=1, measures="norms")
    small = Sweep(activation=f"{mine}:softer", solver="euler", **settings)
    small.run(tmp_path / "data", progress=False)
    mine.write_text("import jax.numpy as jnp\nsofter = jnp.tanh\n")
    with pytest.raises(jo.JaxoscError, match="files that have changed since"):
        jo.sweeps.resume(tmp_path / "data")


def test_python_objects_continue_with_the_same_sweep(tmp_path: Path):
    settings = dict(solver="euler", neurons=2, draws=2, ics=1, duration=1, measures="norms")
    path = tmp_path / "data"
    Sweep(activation=lambda y: y / (2 + abs(y)), **settings).run(path, progress=False, chunk_members=1)
    lines = (path / ledger.NAME).read_text().splitlines(keepends=True)
    (path / ledger.NAME).write_text(lines[0])
    with pytest.raises(jo.JaxoscError, match="activation 'lambda' was a Python object"):
        jo.sweeps.resume(path)
    with pytest.raises(jo.JaxoscError, match="holds the store of another sweep"):
        Sweep(activation={"lambda": lambda y: y / (3 + abs(y))}, **settings).run(path)
    Sweep(activation=lambda y: y / (2 + abs(y)), **settings).run(path, progress=False)
    assert jo.sweeps.status(path).complete


def test_other_versions_are_told(store: Path, tmp_path: Path):
    path = copy(store, tmp_path / "data")
    meta = json.loads((path / "zarr.json").read_text())
    meta["attributes"]["jaxosc_version"] = "0.0.1"
    (path / "zarr.json").write_text(json.dumps(meta))
    with pytest.warns(UserWarning, match=r"other versions or settings \(jaxosc 0.0.1 -> "):
        jo.sweeps.resume(path, progress=False)


def test_too_large_plans_are_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(jo.JaxoscError, match=r"smallest block needs .* expected at most 1 MB"):
        Sweep(neurons=500).plan(memory="1 MB")
    with pytest.raises(jo.JaxoscError, match=r"dataset takes .* in memory: give run a path"):
        Sweep(neurons=2, draws=20_000, ics=1_000).run(None, memory="100 MB")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6 - 10**3, 10**3))
    with pytest.raises(jo.JaxoscError, match=r"needs up to .* of disk, expected at most the 1 kB that are free"):
        SWEEP.run(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_program_larger_than_the_bound_is_refused():
    plan = make_plan(Sweep(solver="euler", neurons=2, draws=1, ics=1, duration=1, measures="norms"))
    with pytest.raises(jo.JaxoscError, match=r"program that needs .* per block, expected at most 1 kB"):
        run_into(MemorySink(dataclasses.replace(plan, memory=1000)), Silent())


@pytest.mark.parametrize("options", [dict(memory="much"), dict(workers=0), dict(chunk_members=0), dict(memory=-1)])
def test_bad_options_give_one_sentence(options: dict):
    with pytest.raises(jo.JaxoscError, match=f"Got {next(iter(options))} = "):
        SWEEP.plan(**options)


def test_chunks_shrink_to_the_memory_bound():
    large = Sweep(neurons=2, draws=1000, ics=1000)
    roomy, tight = large.plan(memory="1 GB", workers=2), large.plan(memory="2 MB", workers=2)
    assert np.prod(tight.chunk_shape) < np.prod(roomy.chunk_shape)
    assert tight.memory_bytes <= 2e6
    assert (roomy.members, roomy.num_chunks) == (10**6, 32)


def test_plan_prints_what_a_person_asks():
    text = str(jo.sweeps.default_study().plan(workers=2))
    for words in ("18 to compile", "497,664 in 162 chunks", "euler, poisson_splitting, tsit5", "estimate", "disk"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 110
