"""The benchmarks run, time what they say they time, and draw the right conclusions from made-up points."""

import importlib
import json
import time

import jax.numpy as jnp
import numpy as np
import pytest

import jaxosc as jo


@pytest.fixture
def room(repository, monkeypatch):
    """Import a module of `benchmarks/`, which is no part of the installed package."""
    monkeypatch.syspath_prepend(str(repository))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def ran(fresh_python, tmp_path, name, *options):
    """What the command wrote, after a check that it ended well."""
    found = fresh_python("-m", f"benchmarks.{name}", "--quick", "--out", str(tmp_path), *options)
    assert found.returncode == 0, found.stderr
    assert "Traceback" not in found.stderr
    return json.loads((tmp_path / f"{name}.json").read_text()), found.stdout


def test_work_precision_runs(fresh_python, tmp_path):
    names = ("PairSplitting", "diffrax Tsit5", "SciPy")
    only = [option for name in names for option in ("--only", name)]
    record, text = ran(fresh_python, tmp_path, "work_precision", "--sizes", "2", *only)
    points = record["points"]
    assert {point["method"].split(",")[0] for point in points} == {*names[:2], "SciPy DOP853"}
    assert all(point["microseconds"] > 0 for point in points)
    exact = [point for point in points if point["method"] == "PairSplitting"]
    assert {point["is_long"] for point in exact} == {False, True}
    # For n = 2 it is the solution: rounding over 100 (short) and 2,000 (long) units of time.
    assert max(point["state_error"] for point in exact) < 1e-12
    assert max(point["energy_error"] for point in exact) < 1e-12
    tsit5 = [point for point in points if point["method"] == "diffrax Tsit5" and point["setting"] == 0.5]
    short, long = sorted(tsit5, key=lambda point: point["is_long"])
    # It loses energy steadily: 20 times the time, 20 times the loss, up to the different members.
    assert 5 < long["energy_error"] / short["energy_error"] < 80
    assert short["evaluations"] == pytest.approx(12)  # six stages in half a unit of time
    answer = next(a for a in record["energy"] if a["peer"]["method"] == "SciPy DOP853")
    assert answer["ours"]["method"] == "PairSplitting"
    assert answer["ratio"] > 100
    assert record["machine"]["cores"].endswith("pinned")
    assert record["machine"]["float64"]
    assert "(a) In" in text
    assert (tmp_path / "work_precision.png").stat().st_size > 20_000


def test_accelerators_runs_where_there_is_none(fresh_python, tmp_path):
    record, text = ran(fresh_python, tmp_path, "accelerators", "--only", "n = 2, own, float32, Euler")
    rows = {row["way"]: row for row in record["rows"]}
    assert rows.keys() == {"engine", "diffrax"}
    assert all(row["picoseconds"] > 0 for row in rows.values())
    # 400 roundings of 1 eps or two each, some of which add up.
    assert all(0 < row["error"] < 400 for row in rows.values())
    assert "kernel: none" in text


def test_measures_are_measured(fresh_python, tmp_path):
    record, text = ran(fresh_python, tmp_path, "measures")
    assert len(record["rows"]) == 6  # three solvers, one W and a W each
    for row in record["rows"]:
        assert row["same_states"] and 0 < row["norm_error"] < 1e-6
        assert all(min(timing["cpu"]) > 0 for timing in row["timings"].values())
    assert "all measures cost at most 35 %" in " ".join(text.split())


def test_choices_are_measured(fresh_python, tmp_path):
    record, text = ran(fresh_python, tmp_path, "choices", "--only", "CHUNK_BYTES")
    (answer,) = record["answers"]
    assert set(answer["over_best"]) == {str(2**power) for power in (13, 14, 16)}
    assert min(answer["over_best"].values()) == 1
    assert answer["is_right"] == (answer["over_best"][str(answer["chosen"])] <= 1.1)
    assert "within 10" in text


def test_every_choice_is_asked_about(room):
    """And an override lasts as long as it is meant to. Those of a GPU are asked by `benchmarks.accelerators`, there."""
    choices, table = room("choices"), importlib.import_module("jaxosc._choices")
    names = {name for name in vars(table) if name.isupper()} - {"ACCELERATOR_LANES", "KERNEL_UP_TO"}
    assert {question.constant for question in choices.questions()} == names
    before = table.BLOCK
    with choices.overridden("BLOCK", 3):
        assert table.BLOCK == 3
    assert before == table.BLOCK


@pytest.mark.slow
def test_gradients_run(fresh_python, tmp_path):
    record, text = ran(fresh_python, tmp_path, "gradients")
    rows = [row for row in record["rows"] if row["difference"] is not None]
    assert len(rows) == 6
    # Roundings of a few hundred steps.
    assert max(row["difference"] for row in rows) < 1e-12
    memory = record["memory"]["jo.Reversible()"]
    # One way to run back, whatever the number of steps.
    assert memory["400"] <= 1.01 * memory["100"]
    assert record["memory"]["jo.Checkpointed()"]["400"] > 1.5 * memory["400"]
    assert "forward runs" in text


PEERS = ("ForwardEuler", "C", "NumPy", "torchode", "SciPy")


def test_peers_run(fresh_python, tmp_path, room):
    options = [option for word in PEERS for option in ("--only", word)]
    record, text = ran(fresh_python, tmp_path, "peers", "--kinds", "shared", "--dtypes", "float32", *options)
    assert "lyapax sweeps with fixed steps" in text
    here = "float32, shared W, n = 2"
    assert set(record["fixed"]) == {here}
    rows = {row["name"]: row for row in record["fixed"][here]["rows"]}
    assert {"jo.simulate, ForwardEuler", "jo.simulate, ForwardEuler, configure_cpu", "NumPy loop"} <= set(rows)
    # What is missing here (a compiler, torchode) is said, and nothing else.
    assert ("C" in rows) != ("no gcc or cc" in text)
    assert ("torchode Euler" in rows) != ("torchode is not installed" in text)
    for row in rows.values():
        assert row["nanoseconds"] > 0
        assert row["rounding"] < 1e-5  # float32, 100 steps
        assert 1e-4 < row["error"] < 1e-1  # that of Euler
    assert "small_while_loop" in record["machines"][here]["XLA_FLAGS apart"]
    (adaptive,) = record["adaptive"].values()
    assert {row["name"] for row in adaptive["rows"]} <= {"SciPy DOP853", "torchode Tsit5"}
    assert all(row["error"] < 1e-5 for row in adaptive["rows"])
    # A later run of other cases begins with these.
    kept = room("peers_record").read(tmp_path / "peers.json")
    assert kept["fixed"][here].of("NumPy loop") == rows["NumPy loop"]["nanoseconds"]
    assert kept["adaptive"][next(iter(record["adaptive"]))].rows[0].steps > 1


@pytest.mark.slow
def test_compile_time_runs(fresh_python, tmp_path):
    record, text = ran(fresh_python, tmp_path, "compile_time")
    empty, full = record["first"][:2]
    assert empty["programs"] == full["programs"] > 0
    assert full["parts"]["compile"] < 0.5 * empty["parts"]["compile"]
    assert sum(empty["parts"].values()) < empty["seconds"]
    assert "Wanted: at most 1 ms" in text


class TestWanted:
    @pytest.fixture
    def found(self, room):
        """A case of one W, n = 2, in which the peers of these names took so many ns."""
        fixed, timing = room("peers_fixed"), room("harness").Timing((1.0,), (1.0,), 1.0)

        def make(nanoseconds):
            case = fixed.Case(2, False, "float32", 16, 100)
            rows = [fixed.Row(name, case, ns, 0.0, 0.0, 0.0, timing) for name, ns in nanoseconds.items()]
            return fixed.Found(case, fixed.Limits(tanh=0.2, gflops=80.0), rows)

        return make

    def test_ratios_and_verdicts(self, room, found):
        fixed, wanted = room("peers_fixed"), room("peers_wanted")
        ns = {fixed.OURS: 0.5, fixed.OURS + fixed.FLAGS: 0.4, fixed.SPLITTING: 1.5}
        ns |= {fixed.SPLITTING + fixed.FLAGS: 1.0, fixed.IN_C: 0.3, fixed.DIFFRAX: 2.9}
        answers = {answer.question: answer for answer in wanted.answers([found(ns)])}
        c, roofline = answers["speed over C"], answers["speed over roofline"]
        assert (c.configured, c.plain) == (pytest.approx(0.75), pytest.approx(0.6))
        assert c.verdict == "missed by 1.20"
        assert roofline.configured == pytest.approx((0.2 + 2 * 2 / 80) / 0.4)
        assert answers["splitting over Euler"].configured == pytest.approx(2.5)
        assert answers["splitting over Euler"].verdict == "reached"
        assert answers[f"speed over {fixed.DIFFRAX}"].verdict == "reached"
        # torch is not among them: no question, no answer.
        assert len(answers) == 4


class TestHarness:
    def test_rounds_are_interleaved_and_short_jobs_repeated(self, room):
        harness, seen = room("harness"), []

        def job(name, seconds):
            def run():
                seen.append(name)
                begin = time.process_time()
                while time.process_time() - begin < seconds:
                    pass
                return name

            return harness.Job(run, warm=lambda: seen.append(f"warm {name}"))

        jobs = {"a": job("a", 0.02), "b": job("b", 0.001)}
        measured = harness.measure(jobs, harness.Rules(rounds=2, sample=0.01))
        assert seen[:2] == ["warm a", "warm b"]
        order = [name for name, before in zip(seen[2:], [None, *seen[2:-1]], strict=True) if name != before]
        assert order == ["a", "b", "a", "b"]
        assert seen.count("a") == 2
        assert seen.count("b") > 4
        timing, result = measured["a"]
        assert result == "a"
        assert len(timing.cpu) == 2
        assert 0.02 <= timing.seconds < 0.1

    def test_a_long_job_is_run_once(self, room):
        harness, calls = room("harness"), []
        harness.measure({"long": harness.Job(lambda: calls.append(1))}, harness.Rules(rounds=3, sample=0.0, long=0.0))
        assert len(calls) == 2  # the warm-up and one round

    def test_what_is_not_finite_becomes_null(self, room, tmp_path):
        harness = room("harness")
        harness.write_json(tmp_path / "a.json", {"a": [np.float64(1.5), float("inf")], 2: np.arange(2)})
        assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1.5, None], "2": [0, 1]}


class TestErrors:
    def test_turns_of_the_exact_motion(self, room):
        """Whole turns over long intervals and fractions anywhere on the orbit, small and large."""
        problems = room("problems")
        starts = jnp.array([[0.1, 0.0], [-1.0, 0.7], [0.3, -3.0], [4.0, 5.0]])
        ts = np.linspace(0, 5000, 51)
        states = np.stack([np.asarray(jo.oracles.pair_solution(ts, y0, 1.0)) for y0 in starts])
        energies = problems.energy(np.asarray(starts)).astype(np.float64)
        periods = np.asarray(jo.oracles.pair_period(energies, 1.0))
        np.testing.assert_allclose(problems.turns_of(states, ts), 5000 / periods, rtol=1e-12)

    def test_a_longer_period_is_measured(self, room):
        problems = room("problems")
        problem = problems.problem_of(2, 4)
        ts = np.linspace(0, 1000, 11)[1:]
        slow = [np.asarray(jo.oracles.pair_solution(ts / 1.001, y0, 1.0)) for y0 in jnp.asarray(problem.starts)]
        assert problems.period_error(problem, np.stack(slow), ts) == pytest.approx(1e-3, rel=1e-9)

    def test_energy_is_that_of_the_field(self, room):
        problems = room("problems")
        problem = problems.problem_of(8, 3)
        expected = problem.field.energy(jnp.asarray(problem.starts))
        np.testing.assert_allclose(problems.energy(problem.starts), expected, rtol=1e-14)


class TestComparison:
    @pytest.fixture
    def point(self, room):
        comparison = room("comparison")

        def make(method, family, microseconds, state_error, energy_error=1e-3, is_long=False):
            facts = dict(n=8, is_long=is_long, t1=1e4 if is_long else 100.0, knob="dt", setting=0.1, members=4)
            facts |= dict(spread=0.0, evaluations=10.0, period_error=float("nan"), compile_seconds=1.0)
            errors = dict(microseconds=microseconds, state_error=state_error, energy_error=energy_error)
            return comparison.Point(method=method, family=family, **errors, **facts)

        return make

    def test_energy_in_equal_time_and_accuracy(self, room, point):
        comparison = room("comparison")
        points = [
            point("good", "ours", 1.0, 1e-6, 1e-8, is_long=True),
            point("inaccurate", "ours", 1.0, 1e-2, 1e-14, is_long=True),
            point("slow", "ours", 10.0, 1e-9, 1e-14, is_long=True),
            point("peer", "peer", 1.0, 1e-5, 1e-4, is_long=True),
            point("fast peer", "peer", 0.1, 1e-5, 1e-4, is_long=True),
            point("sharp peer", "peer", 99.0, 1e-11, 1e-4, is_long=True),
        ]
        equal, fast, sharp = comparison.energy_answers(points)
        assert equal.ours.method == "good"
        assert equal.ratio == pytest.approx(1e4)
        assert equal.reason == ""
        assert fast.ours is None
        assert "takes 10 times as long" in fast.reason
        assert sharp.ours is None
        assert "none of our points" in sharp.reason

    def test_state_error_on_the_front(self, room, point):
        comparison = room("comparison")
        points = [
            point("ours", "ours", 0.1, 1e-2),
            point("ours", "ours", 10.0, 1e-6),
            point("peer", "peer", 1.0, 1e-4),
            point("beaten", "peer", 2.0, 1e-3),
            point("lost", "peer", 0.5, 3.0),
            point("winner", "peer", 5.0, 1e-9),
        ]
        level, lost = comparison.state_answers(points, {8: 1e-12})
        # 1e-4 at 1 lies on our own line from (0.1, 1e-2) to (10, 1e-6).
        assert level.peer.method == "peer"
        assert level.ratio == pytest.approx(1)
        assert level.reason == ""
        assert lost.peer.method == "winner"
        assert lost.ratio > 1e3
        assert "none of our points comes to" in lost.reason


@pytest.mark.slow
def test_orbit_classes_run(fresh_python, tmp_path):
    record, text = ran(fresh_python, tmp_path, "orbit_classes", "--no-float32")
    answers = record["answers"]
    for half in ("chosen by", "held out"):
        answer = answers[f"{half}, float64"]
        # A few easy orbits of each of these kinds.
        assert answer["right"] == 1 and answer["undecided"] == 0
        assert np.sum(answer["confusion"]) == answer["orbits"] == 48
    assert answers["held out, float32"]["orbits"] == 1  # none: 1 keeps the shares finite
    assert "wanted: 99 %" in " ".join(text.split())


def test_orbit_classes_count_what_is_wrong(room):
    classes = room("orbit_classes")
    row = classes.Row("a", "held out", "float64", ["periodic"] * 4, [], [1.0], [], np.nan, 0, 0.1)
    row.found.extend(["periodic", "periodic", "undecided", "chaotic"])
    table = classes.confusion([row])
    assert table.sum() == 4
    assert classes.summary(table) == {"orbits": 4, "right": 0.5, "undecided": 0.25}
    assert set(classes.QUICK) <= set(classes.GROUPS)
    assert 2 * sum(count for _, count in classes.GROUPS.values()) >= 2_500


@pytest.mark.slow
def test_tuning_runs(fresh_python, tmp_path):
    record, text = ran(fresh_python, tmp_path, "tuning")
    closed_form, returns = record["pairs"]
    assert closed_form["reached"] == 1
    assert returns["worst"] < 1e-9  # its tolerance
    worst = {row["name"]: max(row["value"], row["omega"], row["start"]) for row in record["agreement"]}
    assert max(worst["PairFormula()"], worst["Returns()"]) < 1e-9
    # Gradients through events at rtol 1e-10.
    assert worst["EventReturns(1e-10)"] < 1e-6
    rows = {row["name"]: row for row in record["rows"]}
    # Four starts whose closed orbits are found, and peers with four iterations, which get nowhere.
    assert max(rows["ours, closed=True"]["off"]) < 1e-6
    assert len(rows) == 5
    assert all(so for wanted, so in record["answers"].items() if "EventReturns" not in wanted)
    assert "reached" in text


class TestTuning:
    def test_the_judge_sees_the_frequency(self, room):
        """Of pairs side by side with one neuron read, known by the closed form."""
        tuning = room("tuning")
        matrices, starts = np.zeros((3, 4, 4)), np.array([[0.5, 0.2, 0.1, 0.1]] * 3)
        omega = np.array([2.0, 2.2, 2.4])  # alike, so that one program is compiled
        matrices[:, 0, 1], matrices[:, 2, 3] = omega, 2.5
        matrices -= np.swapaxes(matrices, 1, 2)
        energy = jnp.sum(jnp.log(jnp.cosh(jnp.asarray(starts[0, :2]))))
        exact = 1 / np.asarray(jo.oracles.pair_period(energy, omega))
        targets = exact * np.array([1, 1.001, 0.9])
        off = tuning.judged(tuning.Problem(matrices, starts, targets), matrices, starts)
        # Splitting of order 6 with 64 steps a turn; the window of 256 periods adds nothing to that.
        np.testing.assert_allclose(off, np.abs(exact / targets - 1), rtol=1e-8, atol=1e-9)

    def test_successes_and_their_price(self, room):
        row = room("tuning").Row("a", [1e-9, 1e-4, 0.3, float("inf")], 6.0, 7.0)
        assert (row.share(1e-6), row.share(1e-3)) == (0.25, 0.5)
        assert (row.per_success(1e-6), row.per_success(1e-3)) == (6, 3)
        assert row.per_success(1e-10) == float("inf")

    def test_losses_vanish_for_the_wanted_sine_alone(self, room):
        peers = room("tuning_peers")
        places = jnp.arange(96) / peers.SAMPLES_PER_PERIOD
        sine = 0.3 * jnp.sin(2 * jnp.pi * places + 1)
        twice = jnp.sin(4 * jnp.pi * places)
        # Amplitude and phase are free; another whole number of turns is orthogonal to it.
        assert float(peers.mismatch(sine)) < 1e-30
        assert float(peers.mismatch(twice)) == pytest.approx(1, rel=1e-14)
        assert float(peers.log_spectrum(sine / 0.3)) < 0.05 * float(peers.log_spectrum(twice))
        times = np.arange(1024) / 32
        # The parabola between the bins.
        assert peers.peak(np.sin(2 * np.pi * 1.013 * times), 1 / 32) == pytest.approx(1.013, rel=1e-4)


@pytest.mark.slow
def test_design_runs(fresh_python, tmp_path):
    record, text = ran(fresh_python, tmp_path, "design")
    (row,) = record["rows"]
    assert row["reached"] == row["right"] == 4
    assert row["judged"] <= 1e-5 < 0.01 < row["least_linear"]  # the linear guess is off by per cents
    assert "wanted 95%" in text


@pytest.mark.slow
def test_waveforms_run(fresh_python, tmp_path):
    record, text = ran(fresh_python, tmp_path, "waveforms")
    assert record and "The bound for the slowest" in " ".join(text.split())
