"""The report needs nothing but itself, says what the data say, and repeats exactly the members that it shows."""

import html.parser
import re
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from synthetic import synthetic_sweep

import jaxosc as jo
from jaxosc import report, sweeps
from jaxosc.report import headline, trajectories
from jaxosc.report.record import commands
from jaxosc.report.study import Study

LOADING = {"src", "srcset", "data", "poster", "background", "action", "formaction", "ping", "manifest", "cite"}


class Page(html.parser.HTMLParser):
    """What a browser would see: tags with their attributes, ids, texts, and whether tags close in order."""

    VOID = frozenset({"meta", "link", "img", "source", "br", "hr"})

    def __init__(self, source: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        self.texts.append(data)

    def of(self, name: str) -> list[dict[str, str]]:
        return [attrs for tag, attrs in self.tags if tag == name]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def assert_self_contained(source: str) -> Page:
    page = Page(source)
    assert page.open == []
    for tag, attrs in page.tags:
        assert tag not in {"script", "iframe", "object", "embed", "base", "video", "audio", "form"}, tag
        assert not [name for name in attrs if name.startswith("on")], "no script in attributes"
        for name in LOADING & attrs.keys():
            assert attrs[name].startswith("data:"), f"{tag} loads {attrs[name][:60]}"
        if "href" in attrs:
            assert attrs["href"].startswith(("#", "data:")), f"{tag} refers to {attrs['href']}"
    styles = "".join(re.findall(r"<style>(.*?)</style>", source, re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", source)
    return page


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """A finished sweep of 2 x 2 x 2 x 2 x 2 members, small enough for a test."""
    path = tmp_path_factory.mktemp("sweep") / "tiny"
    sweeps.Sweep(
        activation=["identity", "tanh"],
        solver=["euler", "poisson_splitting"],
        neurons=[2],
        gain=[1.0],
        dt=[0.05, 0.2],
        draws=2,
        ics=2,
        duration=20.0,
        dtype="float64",
    ).run(path, progress=False)
    return path


@pytest.fixture(scope="module")
def written(store) -> tuple[Path, str]:
    out = report.write(store)
    return out, out.read_text(encoding="utf-8")


def test_the_report_is_one_file_that_loads_nothing(store, written):
    out, source = written
    assert out == store / "report.html"
    page = assert_self_contained(source)
    assert len(source) < 6e6
    assert page.of("meta")[0] == {"charset": "utf-8"}
    assert any(meta.get("name") == "viewport" for meta in page.of("meta"))
    assert "prefers-color-scheme: dark" in source


def test_every_picture_is_there_four_times_and_described(written):
    page = Page(written[1])
    pictures = page.of("picture")
    assert len(pictures) >= 4
    media = Counter(source["media"] for source in page.of("source"))
    assert set(media.values()) == {len(pictures)}
    assert set(media) == {
        "(prefers-color-scheme: dark) and (max-width: 700px)",
        "(prefers-color-scheme: dark)",
        "(max-width: 700px)",
    }
    for image in page.of("img"):
        assert len(image["alt"]) > 40
        assert int(image["width"]) > 1000
    assert len(page.of("figcaption")) == len(pictures)
    assert len({image["src"] for image in page.of("img")}) == len(pictures)


def test_sections_can_be_reached_and_tables_have_heads(written):
    page = Page(written[1])
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(set(ids)) == len(ids)
    assert [a["href"] for a in page.of("a")] == [f"#{block.anchor}" for block in report.BLOCKS]
    assert {block.anchor for block in report.BLOCKS} <= set(ids)
    assert len(page.of("table")) == len(page.of("caption")) == len(page.of("thead"))
    assert all(cell.get("scope") == "col" for cell in page.of("th"))


def test_the_report_says_what_the_store_holds(store, written):
    text = Page(written[1]).text
    data = sweeps.load(store)
    assert "32 members: 2 activations × 2 solvers × 2 step sizes, with 2 weight draws × 2 starts each" in text
    assert "each followed for 20 units of time" in text
    assert "All of them are computed" in text
    assert data.attrs["spec_hash"][:12] in text
    assert "duration = 20.0" in text or '"duration": 20.0' in text
    assert f"jaxosc report {store.name}-again" in text
    assert "Not shown" not in text


def test_the_report_says_what_each_solver_keeps(written):
    """By audits over more steps than the study's own, whatever its network is."""
    text = Page(written[1]).text
    assert "audited over 20,000 steps in float64" in text
    assert "poisson_splitting: the energy error is bounded with identity, tanh." in text
    assert re.search(r"euler: the energy error is exponential( \(the run ended as escaped\))? with identity; ", text)


def test_the_members_shown_are_exactly_those_of_the_store(store):
    data = sweeps.load(store)
    place = trajectories.chosen_place(data)
    for row in trajectories.trajectories(data, place):
        for run in row:
            members = data.sel(activation=run.activation, solver=run.solver).isel(place)
            drift = (run.energies[-1] - run.energies[0]) / run.energies[0]
            assert np.linalg.norm(run.ys[-1] - run.ys[0]) > 1e-3, "the state must have moved"
            assert run.result == jo.Result(int(members["result"]))
            assert run.ts[-1] == pytest.approx(20.0, abs=1e-9)
            # the same numbers in another program: rounding, relative to the energy's own 1e-16, in 400 steps
            np.testing.assert_allclose(drift, float(members["energy_drift"]), rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(np.linalg.norm(run.ys[-1]), float(members["final_norm"]), rtol=1e-9)


def test_a_member_that_leaves_at_once_is_drawn_at_its_start(tmp_path):
    sweep = sweeps.Sweep(
        activation=["identity"],
        solver=["euler", "tsit5"],
        neurons=[2],
        gain=[1.0],
        dt=[1.0],
        draws=1,
        ics=1,
        duration=5.0,
        escape_norm=1e-3,
    )
    data = sweep.run(None, progress=False)
    assert (data["result"] == jo.Result.escaped).all()
    study = Study(data)
    html_of = {block.anchor: block.html(study) for block in report.BLOCKS if block.anchor in ("portraits", "energy")}
    assert html_of["portraits"].count("escaped at t = 0.") == 2


def test_theory_is_drawn_for_euler_and_nothing_else(store):
    data = sweeps.load(store)
    runs = trajectories.trajectories(data, trajectories.chosen_place(data))
    for row in runs:
        assert [run.law is not None for run in row] == [run.solver == "euler" for run in row]
    (linear, _), (tanh, _) = runs
    name, law = linear.law
    assert "exact" in name
    np.testing.assert_allclose(law, linear.energies, rtol=1e-11)  # rounding of 400 steps
    name, law = tanh.law
    assert "averaged" in name
    np.testing.assert_allclose(law, tanh.energies, rtol=0.1)  # the law leaves out the ripple within a period


def test_the_linear_law_holds_for_many_neurons():
    field = jo.CurrentRNN(jo.weights.DenseSkew.random(jax.random.key(3), 8), jo.Identity())
    start, dt = np.linspace(-1, 1, 8), 0.1
    ts, ys = jo.euler_loop(field, jnp.asarray(start), dt, 300)
    name, law = trajectories.euler_law(field, start, dt, np.asarray(ts))
    np.testing.assert_allclose(law, field.energy(ys), rtol=1e-11)
    assert law[-1] > 1.5 * law[0], name


def test_no_law_where_none_is_known():
    weight = jo.weights.DenseSkew.random(jax.random.key(3), 3)
    start, ts = np.ones(3), np.linspace(0, 1, 11)
    assert trajectories.euler_law(jo.CurrentRNN(weight), start, 0.1, ts) is None
    assert trajectories.euler_law(jo.CurrentRNN(weight, jo.Identity(), leak=0.1), start, 0.1, ts) is None
    assert trajectories.euler_law(jo.CurrentRNN(weight, jo.Identity(), bias=jnp.ones(3)), start, 0.1, ts) is None
    bent = jo.CurrentRNN(weight.matrix() + 0.1 * jnp.eye(3), jo.Identity())
    assert trajectories.euler_law(bent, start, 0.1, ts) is None


# what the sentences say, on data whose answers are known


def one_sweep(**changes):
    few = {"neurons": (2,), "gain": (1.0,), "dt": (0.01, 0.1, 1.0), "draws": 2, "ics": 2}
    return synthetic_sweep(**(few | changes))


def test_best_solvers_follow_the_data():
    data = one_sweep(activations=("tanh",))
    drift = np.ones(data["energy_drift_max"].shape)
    drift[:, 1, :, :, :2], drift[:, 2, :, :, 2] = 0.1, 0.1  # splitting best at the first two steps, tsit5 at the last
    data["energy_drift_max"][:] = drift
    sentences = headline.energy_sentences(Study(data))
    assert sentences == [
        "With tanh, energy is kept best by poisson_splitting from dt = 0.01 to 0.1 and tsit5 at dt = 1."
    ]


def test_a_solver_that_loses_members_does_not_win_by_it():
    data = one_sweep(activations=("tanh",), solvers=("euler", "tsit5"))
    data["energy_drift_max"][:] = 1.0
    data["energy_drift_max"][{"solver": 0}] = 1e-9
    data["result"][{"solver": 0, "draw": 0}] = 1
    data["result"][{"solver": 0, "draw": 1, "ic": 0}] = 1  # three of four members lost
    assert headline.best_solvers(data) == [[1, 1, 1]]


def with_axis(data, name, values):
    """The same members along one more axis, between dt and draw like in a sweep."""
    import xarray

    wide = xarray.concat([data] * len(values), dim=xarray.IndexVariable(name, list(values)), data_vars="all")
    return wide.transpose("activation", "solver", "neurons", "gain", "dt", name, "draw", "ic")


def test_solvers_are_ranked_only_where_the_network_conserves_energy():
    data = one_sweep(activations=("tanh",), solvers=("euler", "tsit5"))
    leaking = with_axis(data, "leak", [0.0, 0.1])
    leaking["energy_drift_max"][{"leak": 1, "solver": 0}] = 1e-12  # a network that loses energy by itself
    best, note = headline.energy_sentences(Study(leaking))
    assert "tsit5 at every dt" in best
    assert note == "These compare members with leak = 0."
    (refusal,) = headline.energy_sentences(Study(with_axis(data, "drive", [0.0, 1.0])))
    assert refusal.startswith("Solvers are not ranked: along drive the energy itself need not be conserved")
    (refusal,) = headline.energy_sentences(Study(leaking.isel(leak=[1])))
    assert "along leak" in refusal


def test_escapes_are_told_by_activation():
    data = one_sweep(activations=("tanh", "relu"), solvers=("euler",), dt=(0.1, 0.2))
    data["result"][:] = 0
    assert headline.escape_sentences(Study(data)) == ["Every member ran to the end: none escaped, none failed."]
    data["result"][{"activation": 1, "dt": 0}] = 1
    assert headline.escape_sentences(Study(data)) == [
        "Of the members, 25% escaped before the run ended.",
        "By activation: relu 50%; none with tanh.",
    ]
    data["result"][{"activation": 0, "dt": 1, "draw": 0}] = 2
    assert headline.escape_sentences(Study(data)) == [
        "Of the members, 25% escaped and 12% became NaN or infinite before the run ended.",
        "By activation: relu 50% and tanh 25%.",
    ]


def test_steady_and_bounded_errors_are_told_apart():
    data = one_sweep(activations=("tanh",), solvers=("euler", "poisson_splitting"))
    data["energy_drift_max"][:] = 1.0
    data["energy_drift"][{"solver": 0}] = -0.95
    data["energy_drift"][{"solver": 1}] = 0.3
    (sentence,) = headline.growth_sentences(Study(data))
    assert "euler in 100% and poisson_splitting in 0%" in sentence


def test_the_telling_step_is_where_solvers_part():
    data = one_sweep(activations=("tanh",), solvers=("euler", "tsit5"), dt=(0.01, 0.1, 0.5, 1.0))
    for k, (euler, tsit5) in enumerate([(0.01, 0.01), (0.5, 0.01), (0.5, 0.05), (2.0, 2.0)]):
        data["energy_drift_max"][{"solver": 0, "dt": k}] = euler
        data["energy_drift_max"][{"solver": 1, "dt": k}] = tsit5
    assert trajectories.telling_dt(data) == 1


def test_the_chosen_member_is_ordinary_and_turns():
    data = one_sweep(activations=("tanh",), solvers=("tsit5",), dt=(0.1,), draws=5, ics=1)
    data["energy_drift_max"][:] = np.array([1e-6, 1.01, 1.0, 1.1, 1e6]).reshape(1, 1, 1, 1, 1, 5, 1)
    data["period"][:] = 1.0
    data["period"][{"draw": 2}] = 1e4  # the most ordinary one hardly moves
    assert trajectories.chosen_place(data)["draw"] == 1


def test_an_unfinished_study_says_so():
    data = one_sweep()
    data["result"][{"activation": slice(1, None)}] = -1
    data["orbit"][{"activation": slice(1, None)}] = -1
    for name in ("energy_drift", "energy_drift_max", "period"):
        data[name][{"activation": slice(1, None)}] = np.nan
    study = Study(data)
    (sentence,) = headline.progress_sentences(study)
    assert sentence.startswith("This is an unfinished study: 36 members (33%) are computed so far")
    assert "jaxosc resume" in sentence
    assert headline.best_solvers(data)[1:] == [[-1] * 3] * 2


@pytest.mark.parametrize("computed", [0, 1])
def test_a_report_of_an_unfinished_study_works(computed, tmp_path):
    data = one_sweep(activations=("tanh", "relu"), solvers=("euler",), dt=(0.1, 0.2))
    for name in data.data_vars:
        missing = -1 if data[name].dtype.kind == "i" else np.nan
        data[name][{"activation": slice(computed, None)}] = missing
    page = assert_self_contained(report.write(data, tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "This is an unfinished study" in page.text


# what is missing or wrong


def test_what_a_dataset_lacks_is_said_where_it_is_missed(tmp_path):
    data = one_sweep(activations=("rectified_tanh",)).drop_vars(["energy_drift", "energy_drift_max", "orbit"])
    del data.attrs["spec"]
    page = assert_self_contained(report.write(data, tmp_path / "r.html").read_text(encoding="utf-8"))
    assert page.text.count("Not shown. Got") == 7  # maps, drift, portraits, energy, what is kept, orbits, spec
    assert "expected energy_drift_max or energy_drift" in page.text
    assert len(page.of("picture")) == 1  # the results are still there


def test_names_from_a_user_are_escaped(tmp_path):
    data = one_sweep(activations=("<script>alert(1)</script>", "a&b"), dt=(0.1, 0.2), solvers=("euler",))
    page = assert_self_contained(report.write(data, tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "<script>alert(1)</script>" in page.text


def test_blocks_can_be_added_and_a_failing_one_disturbs_nobody(tmp_path):
    class Good:
        title, anchor = "An extra block", "extra"

        def html(self, study: Study) -> str:
            return f"<p>{study.computed} members</p>"

    class Bad:
        title, anchor = "A block without data", "bad"

        def html(self, study: Study) -> str:
            raise jo.JaxoscError("Got nothing, expected <something>: try again.")

    out = report.write(one_sweep(), tmp_path / "r.html", blocks=[Bad(), Good()])
    page = assert_self_contained(out.read_text(encoding="utf-8"))
    assert "108 members" in page.text
    assert "Not shown. Got nothing, expected <something>: try again." in page.text


def test_wrong_input_is_told_before_anything_is_drawn(tmp_path):
    data = one_sweep()
    with pytest.raises(jo.JaxoscError, match="without a place for its report"):
        report.write(data)
    with pytest.raises(jo.JaxoscError, match="without the axis gain"):
        report.write(data.isel(gain=0), tmp_path / "r.html")
    with pytest.raises(jo.JaxoscError, match="there is no store"):
        report.write(tmp_path / "nowhere")
    with pytest.raises(jo.JaxoscError, match="expected one that can be written"):
        report.write(data, tmp_path / "no" / "folder" / "r.html", blocks=[])


def test_commands_name_the_store(store):
    first, _ = commands(Study(sweeps.load(store), store))
    assert first == f"jaxosc sweep {store.name}/spec.toml --out {store.name}-again"


def test_a_sweep_of_python_objects_says_that_no_command_repeats_it(tmp_path):
    sweep = sweeps.Sweep(
        activation=[jo.Elementwise(jnp.tanh)],
        solver=["euler"],
        neurons=[2],
        gain=[1.0],
        dt=[0.1],
        draws=1,
        ics=1,
        duration=1.0,
    )
    out = report.write(sweep.run(None, progress=False), tmp_path / "r.html")
    page = assert_self_contained(out.read_text(encoding="utf-8"))
    assert "The command line cannot repeat this sweep." in page.text
    assert page.text.count("Not shown. Got a store whose activation") == 3  # portraits, energy against time, audits


def test_other_axes_become_pictures_of_their_own_up_to_four():
    data = synthetic_sweep(neurons=(2, 4, 8), draws=1, ics=1)
    labels = [label for label, _ in Study(data).splits("activation", "solver", "dt", "gain")]
    assert labels == ["neurons = 2", "neurons = 4", "neurons = 8"]
    data = synthetic_sweep(neurons=(2, 3, 4, 5, 6), draws=1, ics=1)
    study = Study(data)
    ((label, whole),) = list(study.splits("activation", "solver", "dt", "gain"))
    assert label == ""
    assert study.pooled_words(whole, "activation", "solver", "dt", "gain") == "draws, starts and neurons"
