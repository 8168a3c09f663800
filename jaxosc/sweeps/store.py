"""The store of a sweep: a Zarr v3 group that plain xarray opens, with the ledger and the spec beside its arrays.

`path/` is the group. It is built beside its place and moved there in one step, so a store at `path` is always whole:
arrays, coordinates, attributes, `spec.toml` and an empty ledger. After that only chunks, ledger lines and, at the end,
two attributes are written. A power cut is another matter than a killed process: files of the last seconds may be lost
while their ledger lines are not, because only the ledger is synced.
"""

import dataclasses
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray
import zarr

from .._errors import JaxoscError
from . import ledger
from .ledger import Entry, Ledger
from .memory import readable
from .plan import Chunk, Plan, make_plan
from .schema import attributes, jaxosc_version, utc_now, variables, versions
from .spec import Sweep
from .text import spec_hash, spec_toml, sweep_of_json

SPEC_NAME = "spec.toml"


@dataclasses.dataclass(frozen=True)
class Status:
    """How far the store at `path` is.

    **Attributes:** chunks and members done and in all, `created` and `finished` (UTC; "" while unfinished),
    `wall_time_s`, `spec_hash`.
    """

    path: Path
    chunks_done: int
    chunks: int
    members_done: int
    members: int
    created: str
    finished: str
    wall_time_s: float
    spec_hash: str

    @property
    def complete(self) -> bool:
        """Whether every chunk is done."""
        return self.chunks_done == self.chunks

    def __str__(self) -> str:
        share = 100 * self.chunks_done / self.chunks
        state = f"finished {self.finished}" if self.complete else f"unfinished: continue with jaxosc resume {self.path}"
        return (
            f"{self.path}: {self.chunks_done:,} of {self.chunks:,} chunks ({share:.0f} %), {self.members_done:,} of"
            f" {self.members:,} members, {self.wall_time_s:.0f} s\nbegun {self.created}, {state}\n"
            f"spec hash {self.spec_hash}"
        )


class Store:
    """An existing store, opened to add chunks; see `open_or_create`."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path, self.plan = path, plan
        self.session = uuid.uuid4().hex[:12]
        self.done = {entry.chunk for entry in ledger.entries(path)}
        self._group = zarr.open_group(path, mode="r+")
        self._arrays: dict[str, Any] = {v.name: self._group[v.name] for v in variables(plan.sweep)}
        self._ledger = Ledger(path)

    def write(self, chunk: Chunk, arrays: dict[str, np.ndarray]) -> None:
        """Write the chunk's part of every array. Threads may write different chunks at the same time."""
        where = region(self.plan, chunk)
        shape = tuple(part.stop - part.start for part in where)
        with _plain_os_errors(self.path):
            for name, values in arrays.items():
                self._arrays[name][where] = values.reshape(shape)

    def record(self, chunk: Chunk, elapsed_s: float) -> None:
        """Note in the ledger that the chunk's arrays are written."""
        self._ledger.append(Entry(chunk.number, chunk.members, self.session, round(elapsed_s, 3)))
        self.done.add(chunk.number)

    def finish(self) -> None:
        """Write the end and the wall time of all sessions into the attributes (one file, replaced in one step)."""
        wall_time_s = round(ledger.wall_time(ledger.entries(self.path)), 3)
        attrs: dict[str, Any] = {"finished": utc_now(), "wall_time_s": wall_time_s}
        with _young_parts_of_zarr():
            self._group.update_attributes(attrs)

    def result(self) -> xarray.Dataset:
        """The dataset, lazily."""
        return load(self.path)


def open_or_create(path: Path, plan: Plan) -> Store:
    """The store at `path`: created for the plan, or the one that is there if it holds the same sweep.

    An existing store keeps its own cut into chunks.

    **Raises:** `JaxoscError` for another sweep's store (with both hashes), foreign or half-written content, a path that
    cannot be written, and too little free disk space.
    """
    if _occupied(path):
        attrs = _attributes(path)
        wanted = spec_hash(plan.sweep)
        if attrs["spec_hash"] != wanted:
            raise JaxoscError(
                f"Got the path {path}, which holds the store of another sweep (spec hash {attrs['spec_hash'][:12]},"
                f" this sweep's is {wanted[:12]}), expected an empty one or the same sweep: choose another path."
            )
        _warn_of_versions(path, attrs)
        _require_writable(path)
        cut = _chunk_shape(path, plan)
        return Store(path, make_plan(plan.sweep, memory=plan.memory, workers=plan.workers, chunk_shape=cut))
    _require_disk(path, plan)
    _create(path, plan)
    return Store(path, plan)


def load(path: str | Path) -> xarray.Dataset:
    """The dataset of the store at `path`, as `xarray.open_zarr(path)` gives it; values are read when they are used.

    Warns when chunks are missing, whose integers are -1 and whose floats are NaN.

    **Raises:** `JaxoscError` when there is no whole store of a sweep.
    """
    found = status(path)
    if not found.complete:
        warnings.warn(
            f"{found.chunks - found.chunks_done:,} of {found.chunks:,} chunks of {found.path} are not computed"
            " (num_steps is -1 there): continue with jo.sweeps.resume.",
            stacklevel=2,
        )
    return xarray.open_zarr(found.path)


def status(path: str | Path) -> Status:
    """How far the store at `path` is. **Raises:** `JaxoscError` when there is no whole store of a sweep."""
    path = Path(path)
    if not _occupied(path):
        raise JaxoscError(f"Got the path {path}, where there is no store, expected that of a sweep: correct the path.")
    attrs = _attributes(path)
    arrays = zarr.open_group(path, mode="r")
    array = arrays["num_steps"]
    assert isinstance(array, zarr.Array)
    done = ledger.entries(path)
    return Status(
        path=path,
        chunks_done=len(done),
        chunks=int(np.prod([-(-size // part) for size, part in zip(array.shape, array.chunks, strict=True)])),
        members_done=sum(entry.members for entry in done),
        members=int(np.prod(array.shape)),
        created=attrs["created"],
        finished=attrs["finished"],
        wall_time_s=ledger.wall_time(done),
        spec_hash=attrs["spec_hash"],
    )


def stored_sweep(path: Path) -> Sweep:
    """The sweep of the store at `path`, checked against its hash.

    **Raises:** `JaxoscError` also when a file that the spec refers to has changed since.
    """
    if not _occupied(path):
        raise JaxoscError(f"Got the path {path}, where there is no store, expected that of a sweep: correct the path.")
    attrs = _attributes(path)
    sweep = sweep_of_json(attrs["spec"])
    if spec_hash(sweep) != attrs["spec_hash"]:
        raise JaxoscError(
            f"Got a store in {path} whose spec refers to files that have changed since (spec hash now"
            f" {spec_hash(sweep)[:12]}, then {attrs['spec_hash'][:12]}), expected the same files: restore them, or run"
            " into a new path."
        )
    return sweep


def _create(path: Path, plan: Plan) -> None:
    """Build the empty store beside its place, then move it there."""
    with _plain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        building = path.parent / f".{path.name}.creating-{uuid.uuid4().hex[:12]}"
        building.mkdir()
        try:
            _fill(building, plan)
            if path.exists():
                path.rmdir()  # empty, as was checked; Windows does not rename onto a directory
            building.rename(path)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise


def _fill(path: Path, plan: Plan) -> None:
    """The group with empty arrays, coordinates and attributes, the spec and an empty ledger."""
    group = zarr.create_group(path, zarr_format=3, attributes=attributes(plan.sweep), overwrite=True)
    dims = plan.dimensions
    lanes = dict(zip((dim.name for dim in plan.lane_dimensions), plan.chunk_shape, strict=True))
    with _young_parts_of_zarr():
        for dim in dims:
            coordinate = group.create_array(
                dim.name,
                shape=dim.values.shape,
                dtype=dim.values.dtype,
                dimension_names=(dim.name,),
                attributes=dim.attrs,
            )
            coordinate[:] = dim.values
        for variable in variables(plan.sweep):
            group.create_array(
                variable.name,
                shape=tuple(len(dim.values) for dim in dims),
                chunks=tuple(lanes.get(dim.name, 1) for dim in dims),
                dtype=variable.dtype(plan.sweep),
                fill_value=variable.fill_value,
                dimension_names=tuple(dim.name for dim in dims),
                # One folder of files: Zarr's own "/" makes a tree with nearly as many folders as files.
                chunk_key_encoding={"name": "default", "separator": "."},
                attributes=variable.attrs,
            )
        zarr.consolidate_metadata(path)
    (path / SPEC_NAME).write_text(spec_toml(plan.sweep), encoding="utf-8")
    (path / ledger.NAME).touch()


def region(plan: Plan, chunk: Chunk) -> tuple[slice, ...]:
    """Where a chunk lies in the arrays."""
    static = iter(chunk.combination.index)
    lanes = iter(chunk.lanes)
    found = []
    for dim in plan.dimensions:
        if dim.static:
            place = next(static)
            bounds = place, place + 1
        elif dim.name == "dt":
            bounds = chunk.dt_index, chunk.dt_index + 1
        else:
            bounds = next(lanes)
        found.append(slice(*bounds))
    return tuple(found)


def _chunk_shape(path: Path, plan: Plan) -> tuple[int, ...]:
    """The cut of an existing store along the lane axes."""
    array = zarr.open_group(path, mode="r")["num_steps"]
    assert isinstance(array, zarr.Array)
    by_name = dict(zip((dim.name for dim in plan.dimensions), array.chunks, strict=True))
    return tuple(by_name[dim.name] for dim in plan.lane_dimensions)


def _occupied(path: Path) -> bool:
    """Whether something is at `path`. **Raises:** `JaxoscError` for a file."""
    with _plain_os_errors(path):
        existing = _nearest_existing(path)
        if not existing.is_dir():
            where = "is" if existing == path else "lies below"
            raise JaxoscError(
                f"Got the path {path}, which {where} the file {existing.name}, expected a directory: choose another."
            )
        return existing == path and any(path.iterdir())


def _attributes(path: Path) -> dict[str, Any]:
    """The attributes of the store at `path`. **Raises:** `JaxoscError` when it is none, or not whole."""
    try:
        attrs = json.loads((path / "zarr.json").read_text())["attributes"]
        ours = isinstance(attrs.get("spec_hash"), str)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        ours = False
    if not ours:
        names = sorted(entry.name for entry in path.iterdir())
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise JaxoscError(
            f"Got the path {path}, which holds other files ({shown}), expected a sweep's store or an empty directory:"
            " choose another path."
        )
    missing = [name for name in (ledger.NAME, "num_steps/zarr.json") if not (path / name).is_file()]
    if missing:
        raise JaxoscError(
            f"Got a half-written store in {path} ({missing[0]} is missing), expected a whole one: delete it and run"
            " again."
        )
    return attrs


def _warn_of_versions(path: Path, attrs: dict[str, Any]) -> None:
    then = json.loads(attrs["versions"]) | {"jaxosc": attrs["jaxosc_version"]}
    now = versions() | {"jaxosc": jaxosc_version()}
    changed = [f"{name} {then.get(name)} -> {now[name]}" for name in now if now[name] != then.get(name)]
    if changed:
        warnings.warn(
            f"{path} was begun with other versions or settings ({', '.join(changed)}): later chunks may differ in the"
            " last bits.",
            stacklevel=2,
        )


def _require_writable(path: Path) -> None:
    if not os.access(path, os.W_OK):
        raise JaxoscError(f"Got the path {path}, which cannot be written, expected a writable one: choose another.")


def _require_disk(path: Path, plan: Plan) -> None:
    """**Raises:** `JaxoscError` when the data, uncompressed, do not fit on the disk."""
    existing = _nearest_existing(path)
    needed = plan.disk_bytes
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise JaxoscError(
            f"Got a plan that needs up to {readable(needed)} of disk, expected at most the {readable(free)} that are"
            f" free at {existing}: take fewer members, or a path on another disk."
        )


def _nearest_existing(path: Path) -> Path:
    """The path itself or the nearest directory above it that is there."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


@contextmanager
def _young_parts_of_zarr() -> Iterator[None]:
    """Without the warning that fixed-width strings and consolidated metadata may still change in Zarr's v3.

    xarray reads both silently and warns when the second is missing; variable-width strings would come back as a dtype
    that NumPy cannot cast to str.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"The data type \(FixedLengthUTF32")
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        yield


@contextmanager
def _plain_os_errors(path: Path) -> Iterator[None]:
    """Failures of the file system as one sentence."""
    try:
        yield
    except OSError as error:
        raise JaxoscError(
            f"Got the path {path}, which cannot be used ({error.strerror or error}), expected a writable place with"
            " free space: choose another path."
        ) from None
