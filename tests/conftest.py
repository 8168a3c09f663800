"""The strict session: float64 on, implicit rank promotion an error, every signature's shapes checked.

Warnings are errors too; that list, with a reason for each exception, is in pyproject.toml. The settings are
made here and not in the environment, so that tests which start a fresh process see jaxosc as a user would.
The session keeps to one device, like most laptops; tests of several devices start a process of their own.
"""

import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"  # no test may need a display; read when matplotlib is first imported

import jax
import jaxtyping
import pytest

# Tracing makes millions of small objects; a tenth of the session went to looking through them for garbage.
gc.set_threshold(100_000, 20, 20)

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

# The hook rewrites modules while they are imported, so it stands before the session's first `import jaxosc`.
_HOOK = jaxtyping.install_import_hook("jaxosc", "signatures.check")

# Many tests build the same program again behind a new function object; a cache on disk lets XLA compile it
# once. It lives and dies with the session: an older cache could hide that a program no longer compiles.
_CACHE = Path(tempfile.mkdtemp(prefix="jaxosc-tests-xla-"))
jax.config.update("jax_compilation_cache_dir", str(_CACHE))

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_unconfigure() -> None:
    """Remove the session's compilation cache."""
    shutil.rmtree(_CACHE, ignore_errors=True)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def loops_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for the process: XLA takes no second loop under the name of a first."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def native_loops(loops_folder: Path) -> Iterator[None]:
    """Time loops in C, kept in a folder of these tests; without a compiler there is nothing to test."""
    from jaxosc import native
    from jaxosc.native import build

    if native.compiler() is None:
        pytest.skip("no C compiler (gcc or clang) on this machine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(build.ASKED, "1")
        patch.setenv("XDG_CACHE_HOME", str(loops_folder))
        build.target_of.cache_clear()
        yield
        build.target_of.cache_clear()


@pytest.fixture
def fresh_python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python ARGS` in a new process without the session's settings; the result carries text output.

    `env` adds variables: `{"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}` gives eight CPU devices.
    """

    def run(*args: str, env: dict[str, str] | None = None, cwd: Path = tmp_path, timeout: float = 300):
        paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        return subprocess.run(
            [sys.executable, *args],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(env or {})},
            cwd=cwd,
            timeout=timeout,
            capture_output=True,
            text=True,
            check=False,
        )

    return run
