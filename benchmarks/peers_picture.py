"""The figure of the README: time per neuron and step against n, for one W and for a W each."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from jaxosc import plotting
from jaxosc.plotting.appearance import marks

from .peers_fixed import DIFFRAX, FLAGS, IN_C, NUMBA, NUMPY, OURS, TORCH, TORCHDIFFEQ, Found

SHOWN = {
    OURS + FLAGS: "jaxosc (configure_cpu)",
    OURS: "jaxosc",
    IN_C: "C by hand",
    DIFFRAX: "diffrax",
    TORCH: "torch eager",
    TORCHDIFFEQ: "torchdiffeq",
    NUMBA: "numba",
    NUMPY: "NumPy",
}


def draw(found: Sequence[Found], path: Path) -> None:
    """float32 alone: float64 tells the same story."""
    cases = [one for one in found if one.case.dtype == "float32"]
    with plotting.style():
        figure, panels = plt.subplots(1, 2, figsize=(9.4, 4.2), layout="constrained", sharey=True)
        for axes, own in zip(panels, (False, True), strict=True):
            here = sorted((one for one in cases if one.case.own is own), key=lambda one: one.case.n)
            _panel(axes, here)
            axes.set_title("a W for each member" if own else "one W for all members")
            axes.set_xlabel("neurons")
        panels[0].set_ylabel("ns per neuron and step, one core")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
        plt.close(figure)


def _panel(axes: Axes, found: Sequence[Found]) -> None:
    sizes = [one.case.n for one in found]
    axes.fill_between(
        sizes, [one.roofline for one in found], alpha=0.15, color="grey", label="below the roofline of vector units"
    )
    for mark, (name, label) in zip(marks(len(SHOWN), dark=False), SHOWN.items(), strict=True):
        ours = name.startswith(OURS)
        look = dict(color=mark.color, marker=mark.marker, fillstyle="full" if ours else "none")
        look["linestyle"] = "-" if ours or name == IN_C else "--"
        axes.loglog(sizes, [one.of(name) for one in found], label=label, linewidth=2.0 if ours else 1.1, **look)
    axes.set_xticks(sizes, [str(n) for n in sizes], minor=False)
    axes.minorticks_off()
    axes.grid(True)
