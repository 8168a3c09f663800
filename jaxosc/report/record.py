"""The blocks that let somebody else do it again: the spec, the versions, the commands."""

import json
import platform
from importlib import metadata
from typing import Any

from jaxosc import __version__
from jaxosc._errors import JaxoscError
from jaxosc.sweeps import spec_of
from jaxosc.sweeps.text import spec_toml

from .block import Table, render
from .study import Study


class Spec:
    """What was asked for, word by word."""

    title = "The spec"
    anchor = "spec"

    def html(self, study: Study) -> str:
        """The TOML file beside the store, or else the JSON of the dataset; raises `JaxoscError` without both."""
        text, kind = spec_text(study)
        return render("spec.html.j2", text=text, kind=kind, spec_hash=study.dataset.attrs.get("spec_hash", ""))


class Reproduce:
    """Versions and command lines."""

    title = "How to reproduce"
    anchor = "reproduce"

    def html(self, study: Study) -> str:
        """Commands that make the same data and this page, and what made them."""
        attributes = study.dataset.attrs
        return render(
            "reproduce.html.j2",
            commands=commands(study),
            lost=lost_objects(study),
            version=attributes.get("jaxosc_version", __version__),
            seed=attributes.get("seed", "unknown"),
            made_with=_versions_table(attributes),
            page_versions=f"Python {platform.python_version()}, matplotlib {metadata.version('matplotlib')}",
        )


def spec_text(study: Study) -> tuple[str, str]:
    """The spec and its format, "TOML" or "JSON"."""
    if study.path is not None and (study.path / "spec.toml").is_file():
        return (study.path / "spec.toml").read_text(encoding="utf-8").strip(), "TOML"
    spec = study.dataset.attrs.get("spec", "")
    if not spec:
        raise JaxoscError("Got a dataset without the attribute spec, expected one that a sweep made: load its store.")
    if not lost_objects(study):
        return spec_toml(spec_of(study.dataset)).strip(), "TOML"
    return json.dumps(json.loads(spec), indent=2, ensure_ascii=False), "JSON"


def lost_objects(study: Study) -> str:
    """Why the command line cannot repeat this sweep, as a sentence; "" when it can."""
    try:
        spec_of(study.dataset)
    except JaxoscError as reason:
        return str(reason)
    return ""


def commands(study: Study) -> list[str]:
    """The exact command lines, from a spec file to this page."""
    name = study.path.resolve().name if study.path is not None else "results"
    spec = f"{name}/spec.toml" if study.path is not None else "spec.toml"
    return [f"jaxosc sweep {spec} --out {name}-again", f"jaxosc report {name}-again"]


def _versions_table(attributes: dict[Any, Any]) -> Table:
    versions = {"jaxosc": attributes.get("jaxosc_version", "unknown"), **json.loads(attributes.get("versions", "{}"))}
    facts = {
        "dtype": attributes.get("dtype"),
        "matmul precision": attributes.get("matmul_precision"),
        "device": attributes.get("device_kind"),
        "created (UTC)": attributes.get("created"),
        "finished (UTC)": attributes.get("finished") or "not yet",
    }
    rows = [[str(k), str(v)] for k, v in {**versions, **facts}.items() if v is not None]
    return Table("Made with", ["what", "version or value"], rows)
