"""The chunk ledger: which chunks of a store are done, one JSON line each, written after the chunk's data.

NaN in the data never means "not computed"; the ledger alone says what is done. A line is appended and synced to disk
once the arrays' files are written, so a process that is killed at any moment leaves at worst a chunk that is done and
not listed (it is computed again, to the same bits) and a torn last line (it is dropped).
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

NAME = "ledger.jsonl"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One finished chunk: its number, members, the run ("session") that made it, and that run's seconds so far."""

    chunk: int
    members: int
    session: str
    elapsed_s: float


class Ledger:
    """The ledger of the store at `path`, opened for appending by one process."""

    def __init__(self, path: Path) -> None:
        self._file = path / NAME
        _drop_torn_line(self._file)

    def append(self, entry: Entry) -> None:
        """Write one line and wait until it is on disk."""
        line = json.dumps(dataclasses.asdict(entry)) + "\n"
        with self._file.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())


def entries(path: Path) -> list[Entry]:
    """The finished chunks of the store at `path`, each once, in the order of their lines."""
    found: dict[int, Entry] = {}
    for line in (path / NAME).read_bytes().split(b"\n"):
        entry = _entry(line)
        if entry is not None:
            found.setdefault(entry.chunk, entry)
    return list(found.values())


def wall_time(done: list[Entry]) -> float:
    """Seconds of all sessions together, each up to its last finished chunk."""
    by_session: dict[str, float] = {}
    for entry in done:
        by_session[entry.session] = max(by_session.get(entry.session, 0.0), entry.elapsed_s)
    return sum(by_session.values())


def _entry(line: bytes) -> Entry | None:
    """The entry of a line; None for an empty one and for one that was torn by a crash."""
    try:
        fields: Any = json.loads(line)
        return Entry(**fields)
    except (ValueError, TypeError):
        return None


def _drop_torn_line(file: Path) -> None:
    content = file.read_bytes()
    if content and not content.endswith(b"\n"):
        with file.open("r+b") as opened:
            opened.truncate(content.rfind(b"\n") + 1)
