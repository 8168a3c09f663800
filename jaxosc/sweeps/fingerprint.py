"""Objects of the user's own: how a spec finds them, and how a change in their source is noticed.

A sweep must not be continued with another function than it was begun with, and Python cannot say whether two functions
are equal. So the source text is hashed: of the whole file where a reference names one, else of the object, what it is
made of, and what it closes over. What a function reads from its module's globals is not seen; a file is safer.
"""

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import jax
import numpy as np

from .._errors import JaxoscError


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What a reference led to; `reference` has the file's absolute path, so that it holds in every directory."""

    value: Any
    attribute: str
    reference: str
    fingerprint: str


def load_reference(reference: str) -> Loaded:
    """The object that "path/to/file.py:attribute" or "package.module:attribute" names.

    **Raises:** `JaxoscError` when the file, the module or the attribute is not there. An error inside the user's own
    code is passed on as it is.
    """
    source, _, attribute = reference.rpartition(":")
    if source.endswith(".py"):
        path = Path(source).expanduser().resolve()
        module, digest, source = _module_of_file(path, reference), digest_of_file(path), str(path)
    else:
        module = _module_of_name(source, reference)
        # A module compiled into Python has neither a file nor a source; inspect raises for it.
        file = inspect.getsourcefile(module) if getattr(module, "__file__", None) else None
        digest = digest_of_file(Path(file)) if file else _digest([source])
    if not hasattr(module, attribute):
        raise JaxoscError(
            f"Got the reference {reference!r}, but {source} defines no {attribute!r}: expected file.py:object or"
            " module:object with an object that is there."
        )
    return Loaded(getattr(module, attribute), attribute, f"{source}:{attribute}", digest)


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fingerprint(value: Any) -> str:
    """SHA-256 over the source text and the constants of a Python object, in hex; see the module for its limits."""
    return _digest(_texts(value, frozenset()))


def _digest(texts: Any) -> str:
    hasher = hashlib.sha256()
    for text in texts:
        hasher.update(text.encode() if isinstance(text, str) else text)
        hasher.update(b"\0")
    return hasher.hexdigest()


def _module_of_file(path: Path, reference: str) -> ModuleType:
    if not path.is_file():
        raise JaxoscError(f"Got the reference {reference!r}, but there is no file {path}: correct the path.")
    # Named by content, so that an edited file is loaded anew and an unchanged one only once.
    name = f"_jaxosc_user_{digest_of_file(path)[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses, Equinox modules among them, look their module up while they are defined.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _module_of_name(name: str, reference: str) -> ModuleType:
    if not name or importlib.util.find_spec(name.partition(".")[0]) is None:
        raise JaxoscError(
            f"Got the reference {reference!r}, but there is no module {name!r}: expected file.py:object or"
            " module:object; install the module, or give the path of a file."
        )
    return importlib.import_module(name)


def _texts(value: Any, seen: frozenset[int]) -> Iterator[str | bytes]:
    """The strings that tell `value` from another one, depth first."""
    if id(value) in seen:
        return
    seen = seen | {id(value)}
    if isinstance(value, functools.partial):
        parts: list[Any] = [value.func, value.args, value.keywords]
    elif isinstance(value, FunctionType):
        yield _source(value)
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        parts = [value.__defaults__, value.__kwdefaults__, cells]
    elif isinstance(value, type | ModuleType):
        yield f"{getattr(value, '__module__', '')}.{value.__name__}"
        yield _source(value) if isinstance(value, type) else ""
        parts = []
    elif isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        yield f"{array.dtype}{array.shape}"
        yield array.tobytes()
        parts = []
    elif dataclasses.is_dataclass(value):
        parts = [type(value), *(getattr(value, field.name) for field in dataclasses.fields(value))]
    elif isinstance(value, dict):
        parts = [part for item in sorted(value.items(), key=lambda item: repr(item[0])) for part in item]
    elif isinstance(value, list | tuple):
        parts = list(value)
    elif hasattr(value, "__wrapped__"):
        parts = [value.__wrapped__]  # jax.jit and functools.wraps keep the function there
    else:
        text = repr(value)
        # An address differs from process to process and says nothing.
        yield type(value).__qualname__ if " at 0x" in text else text
        parts = []
    for part in parts:
        yield from _texts(part, seen)


def _source(value: Any) -> str:
    code = getattr(value, "__code__", None)
    if code is not None and code.co_name == "<lambda>":
        return _code_text(code)  # its source would be the whole statement around it
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        # Typed at a prompt: no file to read, so the compiled code has to speak.
        return repr(value) if code is None else _code_text(code)


def _code_text(code: CodeType) -> str:
    constants = [_code_text(part) if isinstance(part, CodeType) else repr(part) for part in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"
