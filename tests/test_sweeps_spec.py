"""Specs: what they accept, the one sentence for what they refuse, and their text forms."""

import tomllib
from pathlib import Path

import diffrax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxosc as jo
from jaxosc.sweeps import Axis, Sweep, default_study, load_spec
from jaxosc.sweeps.text import spec_json, spec_toml, sweep_of_json

REFUSED = {
    "n < 2": (dict(neurons=1), "Got neurons = 1, expected a whole number from 2"),
    "fractional n": (dict(neurons=2.5), "Got neurons = 2.5, expected a whole number"),
    "zero dt": (dict(dt=0), "Got dt = 0.0, expected a number > 0"),
    "negative dt": (dict(dt=[0.1, -0.1]), "Got dt = -0.1, expected a number > 0"),
    "zero duration": (dict(duration=0), "Got duration = 0, expected a number > 0"),
    "dt beyond duration": (dict(dt=2.0, duration=1.0), "expected dt <= duration"),
    "too many steps": (dict(dt=1e-9), "expected at most 2147483647"),
    "NaN": (dict(gain=[1.0, float("nan")]), "Got gain = nan, expected a finite number"),
    "text for a number": (dict(gain="big"), "Got gain = 'big', expected a finite number"),
    "twice the same": (dict(gain=[1, 1.0]), "Got gain = 1.0 twice"),
    "empty axis": (dict(gain=[]), "Got an empty list for gain"),
    "unknown activation": (dict(activation="tanhh"), "expected one of identity, tanh, arctan.*did you mean 'tanh'"),
    "unknown solver": (dict(solver="magic"), "Got the unknown solver 'magic', expected one of euler, heun"),
    "unknown law": (dict(weight_law="dense"), "expected one of dense_skew, .*did you mean 'dense_skew'"),
    "activation twice": (dict(activation=["tanh", jo.Tanh(), "tanh"]), "Got activation 'tanh' twice"),
    "no activation": (dict(activation=3), "Got activation 3, expected an activation"),
    "no solver": (dict(solver=jo.Tanh()), "expected a Diffrax solver"),
    "unknown setting": (dict(nuerons=2), "Got the unknown setting 'nuerons'.*did you mean 'neurons'"),
    "unknown ic setting": (dict(ic={"raduis": 2}), "'ic.raduis'.*did you mean 'radius'"),
    "unknown ic law": (dict(ic="cube"), "Got ic.law = 'cube', expected one of normal, sphere, uniform, energy"),
    "energy without law": (dict(ic={"energy": 1}), "expected an energy exactly for the law"),
    "one-sided energy": (dict(ic={"law": "energy", "energy": 1}, activation="relu"), "'relu', whose potential reaches"),
    "unknown measure": (dict(measures=["speed"]), "Got measures = 'speed', expected one of energy, norms, period"),
    "no draws": (dict(draws=0), "Got draws = 0, expected a whole number from 1"),
    "range without num": (dict(dt={"start": 0.1, "stop": 1}), "Got no 'num' in the range for dt"),
    "log range from zero": (dict(gain={"start": 0, "stop": 1, "num": 3, "scale": "log"}), "expected both > 0"),
    "unknown scale": (dict(gain={"start": 1, "stop": 2, "num": 3, "scale": "lin"}), "expected one of linear, log"),
    "dtype": (dict(dtype="float16"), "Got dtype = 'float16', expected one of float32, float64"),
    "part without file": (dict(weight_part="skew"), "Got weight_part without weight_file"),
    "missing file": (dict(weight_file="nowhere.npy"), "there is no such file"),
    "missing reference": (dict(activation="nowhere.py:f"), "there is no file"),
    "missing module": (dict(activation="no_such_module_here:f"), "there is no module 'no_such_module_here'"),
    "missing attribute": (dict(activation="math:no_such_thing"), "math defines no 'no_such_thing'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_settings_give_one_sentence(case: str):
    settings, words = REFUSED[case]
    with pytest.raises(jo.JaxoscError, match=words) as caught:
        Sweep(**settings)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("Got ")
    assert caught.value.__cause__ is None


MATRICES = {
    "not skew": (np.array([[0.0, 1.0], [-1.5, 0.0]]), r"not skew \(max \|W \+ W.T\| = 0.5.*weight_part = \"skew\""),
    "not square": (np.zeros((2, 3)), r"Got a matrix of shape \(2, 3\)"),
    "too small": (np.zeros((1, 1)), r"Got a matrix of shape \(1, 1\)"),
    "NaN": (np.array([[0.0, np.nan], [0.0, 0.0]]), "Got 1 NaN or infinite entries"),
    "symmetric": (np.zeros((3, 3)), "without a skew part"),
}


@pytest.mark.parametrize("case", MATRICES)
def test_bad_weight_files_give_one_sentence(case: str, tmp_path: Path):
    matrix, words = MATRICES[case]
    np.save(tmp_path / "w.npy", matrix)
    with pytest.raises(jo.JaxoscError, match=words):
        Sweep(weight_file=str(tmp_path / "w.npy"))


def test_weight_file_excludes_what_it_replaces(tmp_path: Path):
    file = tmp_path / "w.csv"
    np.savetxt(file, [[0, 2.0, 0], [-2, 0, 1], [0, -1, 0]], delimiter=",")
    sweep = Sweep(weight_file=str(file))
    assert sweep.neurons == (3,)
    assert sweep.draws == 1
    assert Sweep(weight_file=str(file), asymmetry=[0, 0.1]).draws == 32
    for settings, words in (
        (dict(weight_law="circulant"), "Got weight_law and weight_file"),
        (dict(neurons=4), "expected its size"),
        (dict(draws=2), "expected 1, since nothing about W is random"),
    ):
        with pytest.raises(jo.JaxoscError, match=words):
            Sweep(weight_file=str(file), **settings)
    (tmp_path / "text.csv").write_text("a,b\n1,2\n")
    with pytest.raises(jo.JaxoscError, match="does not read as real numbers"):
        Sweep(weight_file=str(tmp_path / "text.csv"))
    with pytest.raises(jo.JaxoscError, match=r"expected a \.npy or \.csv file"):
        Sweep(weight_file=__file__)


def test_skew_part_and_spectral_norm_of_a_weight_file(tmp_path: Path):
    full = np.random.default_rng(0).normal(size=(6, 6))
    np.save(tmp_path / "w.npy", full)
    part = Sweep(weight_file=str(tmp_path / "w.npy"), weight_part="skew").matrix
    np.testing.assert_array_equal(part, 0.5 * full - 0.5 * full.T)
    scaled = Sweep(weight_file=str(tmp_path / "w.npy"), weight_part="skew", normalise="spectral").matrix
    assert np.linalg.norm(scaled, 2) == pytest.approx(1, abs=1e-14)
    np.testing.assert_allclose(scaled * np.linalg.norm(part, 2), part, atol=1e-14)


def test_ranges_and_scalars_become_tuples():
    sweep = Sweep(gain={"start": 0.1, "stop": 10, "num": 3, "scale": "log"}, dt=0.5, leak=np.linspace(0, 1, 3))
    np.testing.assert_allclose(sweep.gain, [0.1, 1, 10])
    assert (sweep.dt, sweep.leak) == ((0.5,), (0.0, 0.5, 1.0))
    assert Sweep().leak is None


def test_default_study_is_the_documented_one():
    study = default_study()
    assert [choice.label for choice in study.activation] == ["identity", "tanh", "rectified_tanh"]
    assert [choice.label for choice in study.solver] == ["euler", "poisson_splitting", "tsit5"]
    assert isinstance(study.solver[0].value, jo.ForwardEuler)
    assert isinstance(study.solver[2].value, diffrax.Tsit5)
    np.testing.assert_allclose(study.dt, np.geomspace(0.01, 1, 9))
    assert (study.neurons, study.gain, study.draws, study.ics) == ((2, 8), (0.5, 1.0, 2.0), 32, 32)


def test_default_study_takes_a_weight_file_in_place_of_its_draws(tmp_path: Path):
    np.save(tmp_path / "w.npy", np.array([[0, 1.0], [-1, 0]]))
    study = default_study(weight_file=str(tmp_path / "w.npy"), dt=0.1)
    assert (study.neurons, study.draws, study.dt, len(study.activation)) == ((2,), 1, (0.1,), 3)


def test_hash_follows_the_data_and_nothing_else(tmp_path: Path):
    base = Sweep(gain=[0.5, 1])
    assert base.hash == Sweep(gain=(0.5, 1.0), activation="tanh").hash
    assert base.hash != Sweep(gain=[1, 0.5]).hash
    assert base.hash != base.replace(seed=1).hash
    assert base.replace(seed=1).replace(seed=0).hash == base.hash
    # A file that moves is the same, a file that changes is not.
    hashes = []
    for folder, slope in (("a", 2), ("b", 2), ("c", 3)):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "mine.py"
        file.write_text(f"import jax.numpy as jnp\ndef steep(y):\n    return jnp.tanh({slope} * y)\n")
        hashes.append(Sweep(activation=f"{file}:steep").hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_hash_sees_the_source_and_the_constants_of_python_objects():
    def steep(slope):
        return lambda y: jnp.tanh(slope * y)

    def with_label(function):
        return Sweep(activation={"mine": function}).hash

    assert with_label(steep(2)) == with_label(steep(2))
    assert with_label(steep(2)) != with_label(steep(3))
    assert with_label(jo.Elementwise(steep(2))) != with_label(jo.Elementwise(steep(3)))
    assert with_label(jo.Elementwise(jnp.tanh)) != with_label(jo.Elementwise(jnp.arctan))


def test_json_and_toml_give_the_same_sweep_back(tmp_path: Path):
    mine = tmp_path / "mine.py"
    mine.write_text("import jax.numpy as jnp\nsofter = jnp.arctan\ndef same(field, value):\n    return field\n")
    sweep = Sweep(
        activation=["tanh", {"soft": f"{mine}:softer"}],
        weight_law=["dense_skew", "circulant"],
        leak=[0, 0.1],
        ic={"law": "sphere", "radius": 2},
        measures=["energy"],
        axes=[Axis("strength", [1, 2.5], f"{mine}:same", units="mV", long_name="a strength")],
        seed=7,
    )
    assert sweep_of_json(spec_json(sweep)).hash == sweep.hash
    file = tmp_path / "spec.toml"
    file.write_text(spec_toml(sweep))
    assert load_spec(file).hash == sweep.hash
    assert load_spec(file, seed=8).hash != sweep.hash


def test_spec_file_paths_are_relative_to_it(tmp_path: Path):
    (tmp_path / "mine.py").write_text("import jax.numpy as jnp\ndef softer(y):\n    return jnp.arctan(y)\n")
    np.save(tmp_path / "w.npy", np.array([[0, 1.0], [-1, 0]]))
    (tmp_path / "spec.toml").write_text('activation = ["tanh", "mine.py:softer"]\nweight_file = "w.npy"\n')
    sweep = load_spec(tmp_path / "spec.toml")
    assert [choice.label for choice in sweep.activation] == ["tanh", "softer"]
    assert isinstance(sweep.activation[1].value, jo.Elementwise)
    assert sweep.neurons == (2,)


def test_bad_spec_files_give_one_sentence(tmp_path: Path):
    with pytest.raises(jo.JaxoscError, match="there is no such file"):
        load_spec(tmp_path / "nowhere.toml")
    (tmp_path / "bad.toml").write_text("gain = [1,\n")
    with pytest.raises(jo.JaxoscError, match="which is no TOML"):
        load_spec(tmp_path / "bad.toml")
    (tmp_path / "axis.toml").write_text("[axes.drive]\nvalues = [1]\n")
    with pytest.raises(jo.JaxoscError, match=r"Got axes.drive = .*expected values, apply"):
        load_spec(tmp_path / "axis.toml")


def test_python_objects_are_named_but_not_read_back():
    sweep = Sweep(activation={"mine": lambda y: jnp.tanh(y)}, axes=[Axis("b", [1], lambda field, value: field)])
    text = spec_toml(sweep)
    assert text.count("was a Python object") == 2
    assert "mine" not in str(tomllib.loads(text)["activation"])
    with pytest.raises(jo.JaxoscError, match="activation 'mine' was a Python object"):
        sweep_of_json(spec_json(sweep))


AXES = {
    "taken name": (lambda: Axis("gain", [1], lambda f, v: f), "none of activation"),
    "no identifier": (lambda: Axis("my axis", [1], lambda f, v: f), "expected an identifier"),
    "no function": (lambda: Axis("b", [1], 3), "expected a function apply"),
    "no field back": (lambda: Sweep(axes=[Axis("b", [1], lambda f, v: v)]), "from the function of axis 'b'"),
    "two of a name": (lambda: Sweep(axes=[Axis("b", [k], lambda f, v: f) for k in (1, 2)]), "expected different names"),
    "no axis": (lambda: Sweep(axes=[3]), "Got the axis 3"),
}


@pytest.mark.parametrize("case", AXES)
def test_bad_axes_give_one_sentence(case: str):
    make, words = AXES[case]
    with pytest.raises(jo.JaxoscError, match=words):
        make()


def test_every_setting_is_described():
    for name, field in Sweep.model_fields.items():
        assert field.description, name
