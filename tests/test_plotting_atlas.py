"""Maps of orbit classes and the chaos atlas draw the shares of their data, in light and dark."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.colors import to_hex, to_rgba
from synthetic import synthetic_atlas, synthetic_sweep
from test_plotting import cells_of, drawn, new_figure
from test_plotting_orbits import axes_of, legend_of

import jaxosc as jo
from jaxosc import plotting
from jaxosc.plotting.atlas import DOUBTFUL_FROM
from jaxosc.plotting.maps import share_text
from jaxosc.plotting.shares import code_fills
from jaxosc.sweeps import chaotic_shares


@pytest.fixture(params=[False, True], ids=["light", "dark"])
def dark(request):
    with plotting.style(request.param):
        yield request.param


# orbit classes


def test_cells_have_the_class_of_most_members(dark):
    data = synthetic_atlas(draws=16).isel(activation=[0], weight_law=[0])
    data["orbit"].values[0, 0, 0, 2, 0, 0, 0] = -1  # neurons 8, the lower energy: nothing computed
    axes = plotting.orbit_classes(data, "energy", "neurons", ax=axes_of())
    shares = plotting.code_shares(data, ("neurons", "energy"), "orbit")
    cells, fills = cells_of(axes), code_fills(shares.names, axes)
    assert np.isnan(cells[2, 0]) and np.isnan(cells).sum() == 1
    (mesh,) = [c for c in axes.collections if isinstance(c, QuadMesh)]
    for j, i in np.argwhere(np.isfinite(cells)):
        code = int(np.argmax(shares.shares[j, i]))
        assert cells[j, i] == code
        assert to_hex(mesh.cmap(mesh.norm(code))) == fills[code][0].lower()
    hatched = {c.get_gid(): len(c.get_paths()) for c in axes.collections if isinstance(c, PolyCollection)}
    present = {shares.names[int(code)] for code in cells[np.isfinite(cells)]}
    assert {"quasi_periodic", "chaotic"} == present
    assert hatched == {f"hatch {name}": int(np.sum(cells == shares.names.index(name))) for name in present}
    most = [shares.shares[j, i].max() for j, i in np.argwhere(np.isfinite(cells))]
    assert [text.get_text() for text in axes.texts] == [share_text(share) for share in most if share < 1]
    assert legend_of(axes) == ["quasi periodic", "chaotic"]
    drawn(axes.figure)


def test_names_are_read_from_the_top_and_numbers_from_the_bottom():
    data = synthetic_sweep()
    axes = plotting.orbit_classes(data, "dt", "activation", variable="result", ax=axes_of(3.5))
    assert axes.get_xscale() == "log" and axes.get_ylim() == (2.5, -0.5)
    assert not axes.texts, "no room for words in nine cells of three inches"
    assert not plotting.orbit_classes(data, "dt", "activation", annotate=False, ax=axes_of(9.0)).texts
    drawn(axes.figure)


def test_orbit_classes_say_what_is_wrong():
    data = synthetic_sweep()
    for x, y, options, words in (
        ("dt", "dt", {}, "x = y = dt"),
        ("leek", "dt", {}, "Got the dimension leek"),
        ("dt", "gain", {"variable": "orbits"}, "expected the variable orbits"),
    ):
        with pytest.raises(jo.JaxoscError, match=words):
            plotting.orbit_classes(data, x, y, ax=axes_of(), **options)


# the atlas


def printed(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_gid() is None]


def corners(axes: Axes) -> np.ndarray:
    found = [c.get_offsets() for c in axes.collections if c.get_gid() == "doubtful"]
    return np.asarray(found[0]) if found else np.zeros((0, 2))


def test_the_atlas_prints_shares_and_intervals_and_cuts_corners(dark):
    data = synthetic_atlas()
    data["orbit"].values[1, 0, 1, 2, 0, 0, 0] = 6  # nobody is decided
    figure = new_figure()
    panels = plotting.chaos_atlas(data, figure=figure)
    shares = chaotic_shares(data).squeeze()
    assert panels.shape == (2, 2)
    for (i, j), axes in np.ndenumerate(panels):
        here = shares.isel(activation=i, weight_law=j).transpose("neurons", "energy")
        np.testing.assert_array_equal(cells_of(axes), here.share)
        words = []
        for place in np.argwhere(here.decided.values > 0):
            share, low, high = (float(here[name].values[tuple(place)]) for name in ("share", "low", "high"))
            words += [share_text(share), f"{100 * low:.0f}–{100 * high:.0f}"]
        assert printed(axes) == words
        doubtful = np.argwhere(here.undecided.values > DOUBTFUL_FROM)
        np.testing.assert_array_equal(corners(axes), doubtful[:, ::-1] + 0.5)
    assert len(printed(panels[1, 1])) == 10
    assert [text.get_text() for text in panels[1, 0].get_xticklabels()] == ["0.1", "3"]
    assert [text.get_text() for text in panels[1, 0].get_yticklabels()] == ["2", "4", "8"]
    assert [panels[0, j].get_title() for j in range(2)] == ["dense_skew", "bipartite"]
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == ["small print: 95 % interval over 16 draws", "more than 5 % undecided", "none decided"]
    drawn(figure)


def test_colours_of_the_atlas_end_at_none_and_all(dark):
    (mesh,) = [
        c
        for c in plotting.chaos_atlas(synthetic_atlas(), figure=new_figure())[0, 0].collections
        if isinstance(c, QuadMesh)
    ]
    assert mesh.get_clim() == (0.0, 1.0)
    paper = np.array(to_rgba(mpl.rcParams["figure.facecolor"]))
    distances = [np.abs(np.array(mesh.cmap(share)) - paper)[:3].sum() for share in (0.0, 0.5, 1.0)]
    assert distances[0] < distances[1] < distances[2], "what nobody does is nearest to the paper"


def test_an_atlas_without_laws_in_a_narrow_figure_and_without_words():
    data = synthetic_atlas(draws=64).isel(weight_law=0, activation=[1], drop=True)
    figure = new_figure(1.9)
    panels = plotting.chaos_atlas(data, figure=figure)
    assert panels.shape == (1, 1) and panels[0, 0].get_title() == "softsign"
    assert printed(panels[0, 0]) == [share_text(s) for s in chaotic_shares(data).share.values.ravel()]
    drawn(figure)
    figure = new_figure()
    assert printed(plotting.chaos_atlas(data, annotate=False, figure=figure)[0, 0]) == []
    everyone = data.assign(orbit=data.orbit.where(data.orbit != 6, 2))
    figure = new_figure()
    plotting.chaos_atlas(everyone, confidence=0.5, figure=figure)
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == ["small print: 50 % interval over 64 draws"]


def test_the_atlas_says_what_is_wrong():
    data = synthetic_atlas(draws=4)
    with pytest.raises(jo.JaxoscError, match="expected energy too"):
        plotting.chaos_atlas(data.isel(energy=0), figure=new_figure())
    two = data.isel(gain=[0, 0]).assign_coords(gain=[1.0, 2.0])
    with pytest.raises(jo.JaxoscError, match=r"2 values of gain.*dataset\.isel\(gain=\[0\]\)"):
        plotting.chaos_atlas(two, figure=new_figure())
    with pytest.raises(jo.JaxoscError, match="orbits"):
        plotting.chaos_atlas(data.drop_vars("orbit"), figure=new_figure())
