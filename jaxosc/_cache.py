"""Where the package keeps what it has compiled, so that the next process need not compile it again."""

import os
import sys
from pathlib import Path


def cache_home() -> Path:
    """The user's cache folder on this system; it may not exist yet."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
