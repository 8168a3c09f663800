"""Networks and results in one small file, without pickle: `save` and `load`.

The file is an `.npz`, that is a zip archive: every array is an entry of its own, called after its place, and
`jaxosc.json` is a text that says how they belong together. So NumPy reads the arrays without this package,

    numpy.load("tuned.npz")["field.weight.entries"],

and `unzip -p tuned.npz jaxosc.json` shows the rest. A pickle would do all of that in a line, but whoever opens a pickle
runs what its writer wanted. Here reading makes objects of classes that jaxosc defines, and calls nothing: no
constructor either, which might round or check anew what was once accepted.
"""

import dataclasses
import enum
import importlib
import inspect
import json
import os
import re
import uuid
import zipfile
import zlib
from pathlib import Path
from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._checks import is_concrete
from ._errors import JaxoscError

FORMAT = 1
"""Of the file; larger when older versions of the package could not read it."""

TEXT = "jaxosc.json"
SUFFIX = ".npz"

LEFT_OUT = {"jaxosc.tuning.tuned:Tuned": ("state",)}
"""Fields that are saved as None: an optimiser's state consists of Optax's classes, which are not ours to make."""

_REFERENCE = re.compile(r"(jaxosc(?:\.\w+)+):(\w+(?:\.\w+)*)")
_PLAIN = "?bhilqBHILQefdgFDGmMSU"
"""Characters of dtypes that an .npy file tells by itself; bfloat16 and its like it does not know."""

_NOT_READ = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, zlib.error)


def save(path: Any, what: Any) -> Path:
    """Write networks or results into one file, from which `jo.load` makes them again, equal to the last bit.

    **Arguments:**

    - `path`: of the file; its name ends with `.npz`. One that exists is replaced, at once and only when the new one is
      complete: whoever interrupts it keeps the old file.
    - `what`: a field, weight, activation or solver of jaxosc, a result such as a `jo.Solution` or `jo.tuning.Tuned`, a
      JAX or NumPy array, a number, text, bool, None or dtype, or tuples, lists and dicts of these.

    **Kept:** dtype, bits and weak type of arrays, and whether they are JAX's or NumPy's. **Not kept:** on which device
    an array was; that two places held one object; the optimiser's state of a `Tuned` (`state` is None, so that `resume`
    begins a new search from the best networks).

    **Returns:** the path. **Raises:** `JaxoscError`, which names the place, for functions (in `jo.Elementwise` or a
    drive), objects of other packages or of your own, and traced values; for another suffix, and a place that cannot be
    written.
    """
    from . import __version__

    place = Path(path)
    if place.suffix != SUFFIX:
        raise JaxoscError(
            f"Got the path {place}, expected a name that ends with {SUFFIX}: call it {place.name}{SUFFIX}."
        )
    arrays: dict[str, np.ndarray] = {}
    text = {"format": FORMAT, "jaxosc": __version__, "what": _Writer(arrays).told(what, "")}
    try:
        _write(place, json.dumps(text, indent=1, allow_nan=False), arrays)
    except OSError as error:
        raise JaxoscError(
            f"Got {place}, which cannot be written ({error.strerror or error}), expected a file in a folder that is"
            " there and yours: mend that or take another."
        ) from error
    return place


def load(path: Any) -> Any:
    """What `jo.save` has written, equal to the last bit: a network from it gives the same trajectory.

    Arrays arrive on JAX's default device. **Arguments:** `path`: of the file.

    **Raises:** `JaxoscError` for a file that is missing, damaged, cut short or no such file, or of a newer format; for
    what this version of jaxosc does not have; and for 64-bit numbers while JAX is not set to them, which would round
    them: call `jax.config.update("jax_enable_x64", True)` first.
    """
    place = Path(path)
    if not place.is_file():
        raise JaxoscError(f"Got {place}, where there is no file, expected one that jo.save wrote: correct the path.")
    try:
        with zipfile.ZipFile(place) as archive:
            if TEXT not in archive.namelist():
                raise JaxoscError(f"Got {place} without {TEXT} in it, expected what jo.save wrote: use numpy.load.")
            text = json.loads(archive.read(TEXT))
            if text["format"] > FORMAT:
                raise JaxoscError(
                    f"Got {place} in format {text['format']}, written by jaxosc {text['jaxosc']}, expected at most"
                    f" {FORMAT}: update jaxosc."
                )
            return _Reader(archive, f"{place}, written by jaxosc {text['jaxosc']},").made(text["what"])
    except (JaxoscError, jax.errors.JaxRuntimeError):
        raise
    except zipfile.BadZipFile as error:
        raise JaxoscError(
            f"Got {place}, which is damaged, cut short or no {SUFFIX} at all, expected what jo.save wrote: save it"
            " again."
        ) from error
    except PermissionError as error:
        raise JaxoscError(f"Got {place}, which may not be read, expected a file of yours: mend that.") from error
    except _NOT_READ as error:
        raise JaxoscError(f"Got {place}, which is damaged, expected what jo.save wrote: save it again.") from error


def _write(path: Path, text: str, arrays: dict[str, np.ndarray]) -> None:
    """All of it beside the place first, and then there in one step."""
    # Not numpy.savez, for which an array called "file" is an argument.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with open(part, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(zipfile.ZipInfo(TEXT), text, zipfile.ZIP_DEFLATED)
                for name, array in arrays.items():
                    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


class _Writer:
    """Turns things into what JSON can tell, and puts their arrays aside."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self._arrays = arrays

    def told(self, thing: Any, place: str) -> Any:
        """The node of one thing; `place` is the way to it, as in field.weight.entries."""
        # Types and not isinstance: what else a subclass holds would be lost.
        kind = type(thing)
        if thing is None or kind in (bool, int, str):
            return thing
        if kind is float:
            # JSON has no word for the others; repr and back gives the same bits.
            return thing if np.isfinite(thing) else {"float": repr(thing)}
        if kind is tuple or kind is list:
            return {kind.__name__: [self.told(item, _below(place, k)) for k, item in enumerate(thing)]}
        if kind is dict:
            return {"dict": [self._pair(k, pair, place) for k, pair in enumerate(thing.items())]}
        if isinstance(thing, jax.Array):
            return self._jax_array(thing, place)
        if kind is np.ndarray or isinstance(thing, np.generic):
            name = "numpy" if kind is np.ndarray else "scalar"
            return {name: self._stored(np.asarray(thing), place)}
        if isinstance(thing, np.dtype) and not thing.hasobject and thing.names is None:
            return {"dtype": _dtype_name(thing)}
        return self._object(thing, place)

    def _pair(self, number: int, pair: tuple[Any, Any], place: str) -> list[Any]:
        key, value = pair
        below = _below(place, key if isinstance(key, str) and key.isidentifier() else number)
        return [self.told(key, f"{below} (a key)"), self.told(value, below)]

    def _jax_array(self, array: Any, place: str) -> dict[str, Any]:
        if not is_concrete(array):
            raise JaxoscError(f"Got a traced array{_at(place)}, expected plain ones: save outside of jit, vmap, grad.")
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            raise JaxoscError(f"Got a random key{_at(place)}, expected numbers: save jax.random.key_data(key).")
        node = {"array": self._stored(np.asarray(array), place)}
        return node | ({"weak": True} if array.weak_type else {})

    def _stored(self, array: np.ndarray, place: str) -> Any:
        """The name of the array's entry; with dtype and shape where the entry does not tell them."""
        if array.dtype.hasobject or array.dtype.names is not None:
            raise JaxoscError(f"Got an array of dtype {array.dtype}{_at(place)}, expected numbers or text.")
        name = place or "value"
        if array.dtype.char in _PLAIN:
            self._arrays[name] = array
            return name
        self._arrays[name] = np.frombuffer(array.tobytes(), np.uint8)
        return [name, array.dtype.name, list(array.shape)]

    def _object(self, thing: Any, place: str) -> dict[str, Any]:
        kind = type(thing)
        reference = f"{kind.__module__}:{kind.__qualname__}"
        if _found(reference) is not kind:
            _refuse(thing, place)
        if isinstance(thing, enum.Enum):
            return {"enum": reference, "name": thing.name}
        left_out = LEFT_OUT.get(reference, ())
        return {
            "class": reference,
            "fields": {
                name: None if name in left_out else self.told(getattr(thing, name), _below(place, name))
                for name in _names(kind)
            },
        }


class _Reader:
    """Makes things from nodes; `source` is told in what it refuses."""

    def __init__(self, archive: zipfile.ZipFile, source: str) -> None:
        self._archive, self._source = archive, source

    def made(self, node: Any) -> Any:
        """The thing of a node."""
        if not isinstance(node, dict):
            if node is None or type(node) in (bool, int, float, str):
                return node
            raise TypeError(node)
        if "class" in node:
            return self._instance(node["class"], node["fields"])
        if "enum" in node:
            return self._class(node["enum"], enum.Enum)[node["name"]]
        if "array" in node:
            return self._jax_array(node["array"], node.get("weak", False))
        ((word, value),) = node.items()
        match word:
            case "float":
                return float(value)
            case "tuple":
                return tuple(self.made(item) for item in value)
            case "list":
                return [self.made(item) for item in value]
            case "dict":
                return {self.made(key): self.made(item) for key, item in value}
            case "numpy":
                return self._array(value)
            case "scalar":
                return self._array(value)[()]
            case "dtype":
                return np.dtype(value)
        raise TypeError(word)

    def _jax_array(self, stored: Any, weak: bool) -> jax.Array:
        values = self._array(stored)
        array = jnp.asarray(values)
        if array.dtype != values.dtype:
            raise JaxoscError(
                f"Got {self._source} with numbers in {values.dtype} while JAX is set to 32 bits, expected room for"
                ' them: call jax.config.update("jax_enable_x64", True) first.'
            )
        if not weak:
            return array
        # Values that are set into a weakly typed array become so; one whose dtype is no default cannot be made.
        blank = jnp.full(values.shape, values.dtype.type(0).item())
        return blank.at[...].set(array) if blank.dtype == array.dtype else array

    def _array(self, stored: Any) -> np.ndarray:
        name, *raw = (stored,) if isinstance(stored, str) else stored
        with self._archive.open(f"{name}.npy") as entry:
            array = np.lib.format.read_array(entry, allow_pickle=False)
        if not raw:
            return array
        dtype, shape = raw
        return np.frombuffer(bytearray(array.tobytes()), np.dtype(dtype)).reshape(tuple(shape))

    def _instance(self, reference: str, fields: dict[str, Any]) -> Any:
        cls = self._class(reference, eqx.Module | tuple)
        names = _names(cls)
        if set(names) != set(fields):
            strange = sorted(set(names) ^ set(fields))
            raise JaxoscError(
                f"Got {self._source} with a {cls.__name__} that differs from today's in {', '.join(strange)}, expected"
                " the same fields: load it with that version, or make it anew."
            )
        values = {name: self.made(fields[name]) for name in names}
        if issubclass(cls, tuple):
            return tuple.__new__(cls, values.values())
        thing = object.__new__(cls)
        for name, value in values.items():
            object.__setattr__(thing, name, value)
        return thing

    def _class(self, reference: str, kind: Any) -> Any:
        cls = _found(reference)
        if cls is None or not issubclass(cls, kind):
            raise JaxoscError(
                f"Got {self._source} with a {reference}, which is no class of this jaxosc that can be loaded, expected"
                " one: load it with that version."
            )
        return cls


def _found(reference: str) -> Any:
    """The class that "module:name" means: a module, named tuple or enumeration that jaxosc defines there, else None."""
    match = _REFERENCE.fullmatch(reference)
    # jaxosc.__main__ would run the command line.
    if match is None or "__" in reference:
        return None
    module, name = match.groups()
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = vars(found)[part]
    except (ImportError, KeyError, TypeError):
        return None
    if not inspect.isclass(found) or (found.__module__, found.__qualname__) != (module, name):
        return None
    named_tuple = issubclass(found, tuple) and "_fields" in vars(found)
    good = issubclass(found, eqx.Module | enum.Enum) or named_tuple
    return found if good and not inspect.isabstract(found) else None


def _names(cls: Any) -> list[str]:
    """The fields of a module or named tuple."""
    return list(cls._fields) if issubclass(cls, tuple) else [field.name for field in dataclasses.fields(cls)]


def _refuse(thing: Any, place: str) -> NoReturn:
    kind = type(thing)
    if callable(thing) and not isinstance(thing, eqx.Module):
        what = f"the function {getattr(thing, '__name__', kind.__name__)}"
    else:
        what = f"an object of {kind.__module__}.{kind.__qualname__}"
    raise JaxoscError(
        f"Got {what}{_at(place)}, expected arrays, numbers, text and classes of jaxosc, since a file holds no code:"
        " save the parts, as in jo.save(path, (field.weight, y0)), and put the rest to them after loading."
    )


def _below(place: str, name: Any) -> str:
    return f"{place}.{name}" if place else str(name)


def _at(place: str) -> str:
    return f" at {place}" if place else ""


def _dtype_name(dtype: np.dtype) -> str:
    return dtype.str if dtype.char in _PLAIN else dtype.name
