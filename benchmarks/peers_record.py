"""What runs of the peers' benchmark have found so far, as JSON and back: a full run can be made in pieces."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from . import peers_adaptive, peers_fixed
from .harness import Timing
from .roofline import Limits

TABLES: dict[str, ModuleType] = {"fixed": peers_fixed, "adaptive": peers_adaptive}


def read(path: Path) -> dict[str, Any]:
    """By table the cases that were measured, by name, and by name of case the machine; empty where there is no file."""
    known = json.loads(path.read_text()) if path.is_file() else {}
    record: dict[str, Any] = {"machines": known.get("machines", {}), "scaling": known.get("scaling", [])}
    for table, module in TABLES.items():
        record[table] = {name: _found(module, found) for name, found in known.get(table, {}).items()}
    return record


def _found(module: ModuleType, record: dict[str, Any]) -> Any:
    rows = [module.Row(**_row(module, row)) for row in record["rows"]]
    limits = record.get("limits")
    more = {"limits": limits and Limits(**limits)} if module is peers_fixed else {}
    return module.Found(case=module.Case(**record["case"]), rows=rows, **more)


def _row(module: ModuleType, record: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {name: float("nan") if value is None else value for name, value in record.items()}
    row["timing"] = Timing(**row["timing"])
    if "case" in row:
        row["case"] = module.Case(**row["case"])
    return row
