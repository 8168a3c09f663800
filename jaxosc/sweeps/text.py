"""A sweep as text: JSON in the store's attributes, TOML for people, and the hash that tells two sweeps apart."""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._errors import JaxoscError
from .catalogue import Choice
from .spec import Starts, Sweep

FORMAT = 1
"""Raised when the random laws or the meaning of a setting change, so that old stores are not continued."""

_LOST = "was a Python object: put it into a file and refer to it"


def spec_settings(sweep: Sweep) -> dict[str, Any]:
    """The settings as plain JSON values; what is a Python object without a reference stands as null."""
    settings: dict[str, Any] = {}
    for name in Sweep.model_fields:
        value = getattr(sweep, name)
        if name in ("activation", "solver", "weight_law"):
            settings[name] = None if value is None else [_entry(choice) for choice in value]
        elif name == "axes":
            settings[name] = {
                axis.name: {
                    "values": list(axis.values),
                    "apply": axis.reference,
                    "units": axis.units,
                    "long_name": axis.long_name,
                }
                for axis in value
            }
        elif isinstance(value, Starts):
            parts = {key: list(part) if isinstance(part, tuple) else part for key, part in value.model_dump().items()}
            settings[name] = {key: part for key, part in parts.items() if part is not None}
        else:
            settings[name] = list(value) if isinstance(value, tuple) else value
    return settings


def spec_json(sweep: Sweep) -> str:
    """The settings, the format number and the fingerprints of what is the user's own, as one JSON object."""
    return json.dumps({"format": FORMAT, **spec_settings(sweep), "fingerprints": _fingerprints(sweep)})


def spec_hash(sweep: Sweep) -> str:
    """SHA-256 (hex) of the settings, fingerprints in place of paths: a moved file is the same, an edited one not."""
    settings = spec_settings(sweep)
    for name in ("activation", "solver", "weight_law"):
        chosen = getattr(sweep, name)
        settings[name] = None if chosen is None else [[choice.label, choice.fingerprint] for choice in chosen]
    for axis in sweep.axes:
        settings["axes"][axis.name]["apply"] = axis.fingerprint
    settings["axes"] = list(settings["axes"].items())  # their order is the order of the dimensions
    settings["weight_file"] = sweep.matrix_digest
    return hashlib.sha256(json.dumps([FORMAT, settings], sort_keys=True).encode()).hexdigest()


def sweep_of_json(text: str) -> Sweep:
    """The sweep that `spec_json` wrote.

    **Raises:** `JaxoscError` when it was made with Python objects that no reference names, or by another format.
    """
    settings = json.loads(text)
    if settings.pop("format", None) != FORMAT:
        raise JaxoscError("Got a spec of another format, expected that of this version: open it with its own jaxosc.")
    settings.pop("fingerprints")
    for name in ("activation", "solver", "weight_law"):
        for entry in settings[name] or ():
            if isinstance(entry, dict) and None in entry.values():
                raise _no_reference(name, next(iter(entry)))
    for name, table in settings["axes"].items():
        if table["apply"] is None:
            raise _no_reference("axes", name)
    return Sweep(**{name: value for name, value in settings.items() if value is not None})


def spec_toml(sweep: Sweep) -> str:
    """The settings as a spec file that `load_spec` reads again, except Python objects, which it names in comments."""
    settings = spec_settings(sweep)
    axes = settings.pop("axes")
    if sweep.weight_file is not None:
        settings.pop("neurons")
    lines = [f"# jaxosc sweep, spec hash {spec_hash(sweep)}"]
    for name, value in settings.items():
        if value is None:
            continue
        if name in ("activation", "solver", "weight_law"):
            lost = [entry for entry in value if isinstance(entry, dict) and None in entry.values()]
            lines += [f"# {name} {next(iter(entry))!r} {_LOST}" for entry in lost]
            value = [entry for entry in value if entry not in lost]
        lines.append(f"{name} = {_toml(value)}")
    for name, table in axes.items():
        lines += ["", f"[axes.{name}]"]
        lines += [f"{key} = {_toml(value)}" for key, value in table.items() if value is not None]
        lines += [f"# apply {_LOST}"] if table["apply"] is None else []
    return "\n".join(lines) + "\n"


def load_spec(file: str | Path, **overrides: Any) -> Sweep:
    """The sweep of a TOML file; paths in it are relative to it. `overrides` replace settings of the file.

        activation = ["tanh", "mine.py:softer"]        # names, or objects in files of your own
        dt = {start = 0.01, stop = 1, num = 9, scale = "log"}
        ic = {law = "sphere", radius = 2.0}
        [axes.drive]
        values = [0, 0.1, 1]
        apply = "mine.py:add_drive"                    # apply(field, value) -> field

    **Raises:** `JaxoscError` for a missing file, a syntax error, and anything `Sweep` refuses.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise JaxoscError(f"Got the spec file {str(file)!r}, but there is no such file: correct the path.")
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise JaxoscError(f"Got the spec file {path.name!r}, which is no TOML ({error}): correct that line.") from None
    return Sweep(**_with_base(settings, path.resolve().parent) | overrides)


def _entry(choice: Choice) -> Any:
    """A name as it is, anything else as {label: reference}."""
    if choice.label == choice.reference:
        return choice.label
    return {choice.label: choice.reference}


def _fingerprints(sweep: Sweep) -> dict[str, str]:
    found = {f"axes.{axis.name}": axis.fingerprint for axis in sweep.axes}
    for name in ("activation", "solver", "weight_law"):
        for choice in getattr(sweep, name) or ():
            if choice.fingerprint:
                found[f"{name}.{choice.label}"] = choice.fingerprint
    if sweep.matrix_digest:
        found["weight_file"] = sweep.matrix_digest
    return found


def _no_reference(axis: str, label: str) -> JaxoscError:
    return JaxoscError(
        f"Got a store whose {axis} {label!r} was a Python object, expected a name or a reference that can be read"
        " again: run the same Sweep object on that path once more, which continues it."
    )


def _with_base(value: Any, base: Path) -> Any:
    """The same settings with "file.py:object" and `weight_file` made absolute."""
    if isinstance(value, Mapping):
        made = {key: _with_base(part, base) for key, part in value.items()}
        return made | ({"weight_file": str(base / made["weight_file"])} if "weight_file" in made else {})
    if isinstance(value, list):
        return [_with_base(part, base) for part in value]
    if isinstance(value, str) and ".py:" in value:
        return str(base / value)
    return value


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(part)}" for key, part in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(part) for part in value) + "]"
    # JSON's strings and numbers are TOML's too, when characters beyond ASCII stay as they are.
    return json.dumps(value, ensure_ascii=False)
