"""`jo.save` and `jo.load`: equal to the last bit, whatever it is; and what they refuse, in one sentence each."""

import hashlib
import json
import zipfile

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxosc as jo
from jaxosc import saved
from jaxosc.tuning import Outcome, Tuned

N = 4
WEIGHTS = (
    jo.weights.DenseSkew,
    jo.weights.RotationBlocks,
    jo.weights.Circulant,
    jo.weights.BandedSkew,
    jo.weights.SparseSkew,
    jo.weights.LowRankSkew,
    jo.weights.Bipartite,
    jo.weights.Symmetrizable,
    jo.weights.Unconstrained,
)
ACTIVATIONS = (
    jo.Identity,
    jo.Tanh,
    jo.Arctan,
    jo.Erf,
    jo.Softsign,
    jo.Algebraic,
    jo.HardTanh,
    jo.ReLU,
    jo.RectifiedTanh,
    jo.Sigmoid,
    jo.ELU,
)
FORMS = (jo.CurrentRNN, jo.RateRNN)


def bits(array):
    """What an array is, as far as anybody can see."""
    values = np.asarray(array)
    weak = isinstance(array, jax.Array) and array.weak_type
    return type(array), values.dtype, values.shape, values.tobytes(), weak


def assert_same(again, thing):
    """The same classes around the same bits, static parts too."""
    assert type(again) is type(thing)
    assert jax.tree.structure(again) == jax.tree.structure(thing)
    pairs = zip(jax.tree.leaves(again), jax.tree.leaves(thing), strict=True)
    for mine, theirs in pairs:
        if eqx.is_array(theirs) or isinstance(theirs, np.generic):
            assert bits(mine) == bits(theirs)
        else:
            # repr tells -0.0 from 0.0, and finds NaN equal to itself.
            assert (type(mine), repr(mine)) == (type(theirs), repr(theirs))


def round_trip(folder, thing):
    """Saved and loaded again; NumPy alone reads every array of the file, without pickle."""
    path = jo.save(folder / "thing.npz", thing)
    with np.load(path, allow_pickle=False) as file:
        assert saved.TEXT in file.files
        assert all(file[name] is not None for name in file.files)
    return jo.load(path)


def network(number, dtype):
    """One of 11: together they have all weights, activations and forms, with and without bias."""
    weight = WEIGHTS[number % len(WEIGHTS)].random(jax.random.key(number), N, dtype=dtype)
    bias = jnp.linspace(-0.1, 0.1, N, dtype=dtype) if number % 3 == 0 else None
    return FORMS[number % 2](weight, ACTIVATIONS[number](), bias=bias, leak=0.01 * (number % 2))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("number", range(len(ACTIVATIONS)))
def test_a_network_gives_the_same_trajectory(number, dtype, tmp_path):
    field = network(number, dtype)
    start = jax.random.normal(jax.random.key(1), (N,), dtype)
    again, y0 = round_trip(tmp_path, (field, start))
    assert_same((again, y0), (field, start))
    _, run = jo.euler_loop(field, start, 0.1, 50)
    assert bits(jo.euler_loop(again, y0, 0.1, 50)[1]) == bits(run)
    assert np.abs(np.asarray(run)[-1] - np.asarray(start)).max() > 1e-2


@pytest.mark.parametrize("cls", WEIGHTS)
def test_batches_of_every_weight(cls, tmp_path):
    """Also its static parts: a loaded weight compiles nothing anew."""
    weights = jax.vmap(lambda key: cls.random(key, N))(jax.random.split(jax.random.key(0), 3))
    assert_same(round_trip(tmp_path, weights), weights)


FRESH = """
import hashlib, sys
import numpy as np
import jaxosc as jo
field, y0 = jo.load("batch.npz")
run = jo.simulate(field, y0, t1=20.0, dt=0.05, solver=jo.solvers.PoissonSplitting(4), save_every=10)
print(hashlib.sha256(np.asarray(run.ys).tobytes()).hexdigest(), field.batch_shape)
"""


def test_a_batch_gives_the_same_trajectories_in_a_fresh_process(tmp_path, fresh_python):
    field = jax.vmap(lambda key: jo.CurrentRNN(jo.weights.DenseSkew.random(key, N)))(
        jax.random.split(jax.random.key(0), 3)
    )
    start = jax.random.normal(jax.random.key(1), (3, N))
    jo.save(tmp_path / "batch.npz", (field, start))
    run = jo.simulate(field, start, t1=20.0, dt=0.05, solver=jo.solvers.PoissonSplitting(4), save_every=10)
    finished = fresh_python("-c", FRESH, env={"JAX_ENABLE_X64": "1"})
    assert finished.returncode == 0, finished.stderr
    digest, shape = finished.stdout.split(maxsplit=1)
    assert digest == hashlib.sha256(np.asarray(run.ys).tobytes()).hexdigest()
    assert shape.strip() == "(3,)"


PAYLOAD = np.array([-0.0, np.inf, np.nan, 5e-324, 0.1])
PAYLOAD.view(np.uint64)[2] |= 7  # a NaN of its own

VALUES = {
    "none": None,
    "numbers": (True, 7, 10**30, 0.1, -0.0, float("nan"), float("inf"), -float("inf")),
    "text": ["", "öre \N{GREEK SMALL LETTER SIGMA}", "a.b", "\ud800"],
    "dict": {"a.b": 1, "a": {"b": np.ones(2)}, "file": np.zeros(1), "b c": (), "": []},
    "keys": {1: np.ones(1), 2: None, 3: {"nested": (1.5, [2.5])}},
    "same place": {"a": {"b": np.ones(2)}, "a_2": np.ones(3), "allow_pickle": np.ones(1)},
    "dtypes": (np.dtype("float32"), np.dtype(">i4"), np.dtype("bfloat16"), np.dtype("U3")),
    "scalars": (np.float64(0.1), np.int8(-3), np.bool_(True), np.complex64(1j), np.str_("word")),
    "numpy": (np.arange(6).reshape(2, 3), np.asfortranarray(np.eye(3)[:, :2]), np.array("word"), np.ones((0, 2))),
    "big endian": np.arange(3, dtype=">f8"),
    "bits": (PAYLOAD, jnp.asarray(PAYLOAD), jnp.asarray(PAYLOAD, jnp.float32)),
    "short": (jnp.asarray([1.5, -0.0], jnp.bfloat16), jnp.asarray(3, jnp.int4), np.asarray(2.5, jnp.bfloat16)),
    "jax": (jnp.arange(3), jnp.asarray(True), jnp.ones((0, 3)), jnp.asarray([1j]), jnp.uint8(3)),
    "weak": (jnp.asarray(0.1), jnp.full(3, -0.0), jnp.asarray(2), jnp.full((2, 2), 1j)),
    "codes": (jo.Result.escaped, Outcome.too_slow),
    "named tuple": jo.solvers.facts.Facts(*range(len(jo.solvers.facts.Facts._fields))),
    "solvers": (jo.solvers.PoissonSplitting(4), jo.solvers.DiscreteGradient(rtol=1e-9), jo.ForwardEuler()),
    "reducers": {"drift": jo.EnergyDrift(), "norms": jo.Norms()},
}


@pytest.mark.parametrize("name", VALUES)
def test_values_come_back(name, tmp_path):
    assert_same(round_trip(tmp_path, VALUES[name]), VALUES[name])


def test_a_value_may_stand_alone(tmp_path):
    assert_same(round_trip(tmp_path, np.float32(0.1)), np.float32(0.1))
    assert_same(round_trip(tmp_path, jnp.arange(3)), jnp.arange(3))


def test_a_solution_comes_back(tmp_path):
    solution = jo.simulate(network(1, jnp.float64), 0.5 * jnp.ones(N), t1=2.0, dt=0.1, save_every=5)
    again = round_trip(tmp_path, solution)
    assert_same(again, solution)
    assert repr(again) == repr(solution)


def test_a_tuned_network_leaves_its_optimiser_behind(tmp_path):
    field, number = network(1, jnp.float64), jnp.asarray(1.0, jnp.float64)
    state = optax.adam(0.1).init(field.weight)
    tuned = Tuned(field, jnp.ones(N), number, number, number, jnp.int8(0), jnp.ones(3), None, state)
    again = round_trip(tmp_path, tuned)
    assert again.state is None
    assert_same(again, eqx.tree_at(lambda t: t.state, tuned, None))
    assert repr(again) == repr(tuned)


def test_numpy_reads_arrays_by_their_place(tmp_path):
    field = network(0, jnp.float32)
    path = jo.save(str(tmp_path / "tuned.npz"), {"field": field, "list": [field.bias]})
    with np.load(path) as file:
        assert bits(file["field.weight.entries"]) == bits(np.asarray(field.weight.entries))
        assert bits(file["list.0"]) == bits(np.asarray(field.bias))
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("jaxosc.json"))["jaxosc"] == jo.__version__


def test_equal_things_give_equal_files(tmp_path):
    first, second = (jo.save(tmp_path / name, network(0, jnp.float32)) for name in ("a.npz", "b.npz"))
    assert first.read_bytes() == second.read_bytes()


class Own(jo.AbstractActivation):
    """An activation that only this file knows."""

    odd = bounded = continuous = monotone = True

    def __call__(self, y):
        """Nothing."""
        return y

    def derivative(self, y):
        """Nothing."""
        return y

    def potential(self, y):
        """Nothing."""
        return y


def driven():
    """A network with a function in it."""
    return jo.CurrentRNN(jo.weights.DenseSkew.random(jax.random.key(0), 2), drive=lambda t: jnp.ones(2) * t)


UNSAVED = {
    "function": (lambda: (jo.Elementwise(jnp.tanh), 1), "the function tanh at 0.fn"),
    "drive": (driven, "at drive.function"),
    "own class": (lambda: {"mine": Own()}, "test_saved.Own at mine"),
    "foreign module": (lambda: eqx.nn.Identity(), "expected arrays, numbers, text and classes of jaxosc"),
    "optimiser": (lambda: [optax.adam(0.1).init(jnp.ones(2))], "ScaleByAdamState at 0.0"),
    "objects": (lambda: {"a": np.array([None])}, "dtype object at a"),
    "records": (lambda: np.zeros(2, "i4,f4"), "expected numbers or text"),
    "masked": (lambda: np.ma.zeros(2), "MaskedArray"),
    "random key": (lambda: (jax.random.key(0),), "save jax.random.key_data(key)"),
    "set": (lambda: {"a": {1, 2}}, "builtins.set at a"),
    "class": (lambda: [jo.Tanh], "at 0"),
    "type": (lambda: jnp.float32, "expected"),
}


@pytest.mark.parametrize("name", UNSAVED)
def test_what_cannot_be_saved_is_named(name, tmp_path):
    make, told = UNSAVED[name]
    with pytest.raises(jo.JaxoscError) as refused:
        jo.save(tmp_path / "thing.npz", make())
    assert told in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_traced_values_are_refused(tmp_path):
    with pytest.raises(jo.JaxoscError, match="expected plain ones: save outside of jit"):
        jax.jit(lambda y: jo.save(tmp_path / "thing.npz", (y,)))(jnp.ones(2))


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("tuned", "call it tuned.npz"),
        ("tuned.eqx", "ends with .npz"),
        ("nowhere/tuned.npz", "cannot be written (No such file or directory)"),
        ("taken.txt/tuned.npz", "cannot be written"),
        ("folder.npz", "cannot be written"),
    ],
)
def test_places_that_cannot_be(path, told, tmp_path):
    (tmp_path / "taken.txt").write_text("text")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(jo.JaxoscError) as refused:
        jo.save(tmp_path / path, 1)
    assert told in str(refused.value)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder.npz", "taken.txt"]


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = jo.save(tmp_path / "tuned.npz", (1, np.ones(2)))

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(np.lib.format, "write_array", interrupt)
    with pytest.raises(KeyboardInterrupt):
        jo.save(path, (2, np.ones(2)))
    assert jo.load(path)[0] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["tuned.npz"]


def test_a_file_is_replaced(tmp_path):
    path = jo.save(tmp_path / "tuned.npz", 1)
    jo.save(path, 2)
    assert jo.load(path) == 2


def refused(path):
    """The sentence with which `load` refuses a file."""
    with pytest.raises(jo.JaxoscError) as caught:
        jo.load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_none(tmp_path):
    assert "there is no file" in refused(tmp_path / "nothing.npz")
    assert "there is no file" in refused(tmp_path)
    (tmp_path / "text.npz").write_text("text")
    assert "no .npz at all" in refused(tmp_path / "text.npz")
    (tmp_path / "empty.npz").write_text("")
    assert "no .npz at all" in refused(tmp_path / "empty.npz")
    np.save(tmp_path / "array.npy", np.ones(2))
    assert "no .npz at all" in refused(tmp_path / "array.npy")
    np.savez(tmp_path / "arrays.npz", a=np.ones(2))
    assert "use numpy.load" in refused(tmp_path / "arrays.npz")


def test_damaged_files(tmp_path):
    """Cut anywhere, and with any byte of the data turned: refused, or harmless, never another exception."""
    field = network(1, jnp.float64)
    whole = jo.save(tmp_path / "whole.npz", field).read_bytes()
    path = tmp_path / "part.npz"
    for length in range(1, len(whole), len(whole) // 40):
        path.write_bytes(whole[:length])
        assert "cut short" in refused(path)
    caught = 0
    for place in range(0, len(whole), len(whole) // 200):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            assert_same(jo.load(path), field)
        except jo.JaxoscError:
            caught += 1
    assert caught > 100


def change(path, edit):
    """Another text in the file."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    text = json.loads(entries["jaxosc.json"])
    edit(text)
    entries["jaxosc.json"] = json.dumps(text).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


STRANGE = [
    "jaxosc.fields:Missing",
    "jaxosc.missing:Tanh",
    "jaxosc.fields:AbstractField",  # abstract
    "jaxosc.fields:CurrentRNN.__call__",
    "jaxosc.fields:Tanh",  # only imported there
    "jaxosc:Tanh",
    "jaxosc._errors:JaxoscError",  # nothing that holds data
    "jaxosc.saved:_Reader",
    "jaxosc._results:Result",  # an enumeration
    "jaxosc.__main__:main",
    f"{eqx.nn.Identity.__module__}:Identity",
    "outsider:Thing",
    "jaxoscillators.fields:CurrentRNN",
    "subprocess:Popen",
    "jaxosc.fields",
]


@pytest.mark.parametrize("reference", STRANGE)
def test_only_classes_of_jaxosc_are_made(reference, tmp_path, monkeypatch):
    """Others are not even looked for: importing a module runs it."""
    (tmp_path / "outsider.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    path = jo.save(tmp_path / "tuned.npz", [jo.Tanh()])
    change(path, lambda text: text["what"]["list"][0].update({"class": reference}))
    assert f"with a {reference}, which is no class" in refused(path)


def test_other_versions(tmp_path):
    path = jo.save(tmp_path / "tuned.npz", jo.solvers.PoissonSplitting(4))
    change(path, lambda text: text["what"]["fields"].update(shiny=1, jaxosc="0.0.9"))
    assert f"written by jaxosc {jo.__version__}, with a PoissonSplitting that differs" in refused(path)
    assert "in jaxosc, shiny," in refused(path)
    path = jo.save(tmp_path / "tuned.npz", jo.solvers.PoissonSplitting(4))
    change(path, lambda text: text["what"]["fields"].pop("lattice"))
    assert "differs from today's in lattice," in refused(path)
    change(path, lambda text: text.update(format=saved.FORMAT + 1, jaxosc="9.9"))
    assert "in format 2, written by jaxosc 9.9, expected at most 1: update jaxosc" in refused(path)
    change(path, lambda text: text.pop("format"))
    assert "is damaged" in refused(path)


@pytest.mark.parametrize("node", [{"os": 1}, {}, {"tuple": 1}, {"array": "gone"}, {"dtype": "x"}, {"dict": [1]}])
def test_texts_without_sense(node, tmp_path):
    path = jo.save(tmp_path / "tuned.npz", 1)
    change(path, lambda text: text.update(what=node))
    assert "is damaged" in refused(path)


def test_no_object_is_unpickled(tmp_path):
    path = jo.save(tmp_path / "tuned.npz", {"a": np.ones(1)})
    np.savez(tmp_path / "objects.npz", a=np.array([{}]))
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "objects.npz") as objects:
        text, pickled = archive.read("jaxosc.json"), objects.read("a.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("jaxosc.json", text)
        archive.writestr("a.npy", pickled)
    assert "is damaged" in refused(path)


def test_wide_numbers_are_not_rounded_in_silence(tmp_path):
    wide, narrow = jo.save(tmp_path / "wide.npz", jnp.arange(3.0)), jo.save(tmp_path / "narrow.npz", jnp.float32(1))
    with jax.enable_x64(False):
        assert 'call jax.config.update("jax_enable_x64", True) first' in refused(wide)
        assert jo.load(narrow).dtype == jnp.float32
    numpy = jo.save(tmp_path / "numpy.npz", np.arange(3.0))
    with jax.enable_x64(False):
        assert bits(jo.load(numpy)) == bits(np.arange(3.0))
