import math

import moocore
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dacnn_search.storage.front import Scale, best_under, front_of, hypervolumes, spread


def record(parameters, accuracy, state="COMPLETE", sequence=1):
    return {"sequence": sequence, "state": state, "parameters": parameters, "accuracy": accuracy}


points = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 20).map(lambda a: a / 20)), max_size=25)


@given(points)
def test_front_is_what_nothing_beats(values):
    records = [record(p, a, sequence=i) for i, (p, a) in enumerate(values)]
    front = front_of(records)

    def beats(a, b):
        no_worse = a["parameters"] <= b["parameters"] and a["accuracy"] >= b["accuracy"]
        return no_worse and (a["parameters"], a["accuracy"]) != (b["parameters"], b["accuracy"])

    unbeaten = {(r["parameters"], r["accuracy"]) for r in records if not any(beats(o, r) for o in records)}
    assert [(r["parameters"], r["accuracy"]) for r in front] == sorted(unbeaten)
    if records:
        objectives = np.array([(p, -a) for p, a in values])
        assert len(front) == moocore.is_nondominated(objectives, keep_weakly=False).sum()


states = st.sampled_from(["COMPLETE", "COMPLETE", "COMPLETE", "PRUNED", "FAIL"])
values = st.tuples(st.integers(1, 30), st.integers(0, 20).map(lambda a: a / 20), states)


@given(st.lists(values, max_size=25))
def test_hypervolumes_are_those_of_the_fronts_so_far(drawn):
    """By a front that is updated record by record; the oracle is moocore on all points so far."""
    records = [record(p, None if s == "FAIL" else a, s, sequence=i) for i, (p, a, s) in enumerate(drawn)]
    scale = Scale(least=1, most=30, chance=0.1)
    expected = [scale.hypervolume([r for r in records[: i + 1] if r["state"] == "COMPLETE"]) for i in range(len(drawn))]
    assert np.allclose(hypervolumes(records, scale), expected, atol=1e-5)


def test_two_thousand_records_that_improve_nothing_take_no_square_of_steps():
    class Counted(dict):
        reads = 0

        def __getitem__(self, key):
            Counted.reads += 1
            return super().__getitem__(key)

    scale = Scale(least=1, most=3000, chance=0.1)
    beaten = [Counted(record(2000 + n % 900, 0.4, sequence=n)) for n in range(2000)]
    hypervolumes([record(1, 0.5), *beaten], scale)
    assert Counted.reads < 20 * len(beaten)
    Counted.reads = 0
    front_of(beaten)
    assert Counted.reads < 20 * len(beaten)


def test_front_leaves_out_stopped_failed_and_nan():
    records = [record(10, 0.5), record(5, 0.9, "PRUNED"), record(4, None, "FAIL"), record(3, math.nan)]
    assert front_of(records) == [records[0]]


def test_the_first_of_equals_stays():
    twins = [record(10, 0.5, sequence=2), record(10, 0.5, sequence=1)]
    assert front_of(twins) == [twins[1]]


def test_spread_takes_both_ends_and_the_middle_by_log_parameters():
    front = [record(p, i / 10) for i, p in enumerate([1_000, 1_200, 1_400, 10_000, 100_000])]
    assert [r["parameters"] for r in spread(front, 3)] == [1_000, 10_000, 100_000]
    assert spread(front, 1) == [front[-1]]
    assert spread(front, 0) == []
    assert spread(front, 9) == front


@given(st.integers(0, 6), st.lists(st.integers(1, 50), unique=True, max_size=8))
def test_spread_never_repeats(count, sizes):
    front = [record(p, p / 100) for p in sorted(sizes)]
    chosen = spread(front, count)
    assert len(chosen) == min(count, len(front))
    assert len({r["parameters"] for r in chosen}) == len(chosen)


def test_best_under_a_budget():
    front = [record(10, 0.5), record(20, 0.6), record(30, 0.7)]
    assert best_under(front, 25) == front[1]
    assert best_under(front, 9) is None


def test_hypervolume_of_known_fronts():
    scale = Scale(least=10, most=1000, chance=0.1)
    assert scale.hypervolume([]) == 0
    assert math.isclose(scale.hypervolume([record(10, 1.0)]), 1.0)
    # Half of the log range (plus the margin of 0.05), all of the accuracy.
    assert math.isclose(scale.hypervolume([record(100, 1.0)]), 0.55 / 1.05)
    assert scale.hypervolume([record(1000, 1.0)]) > 0


def test_hypervolume_of_a_space_with_one_size():
    assert Scale(least=7, most=7, chance=0.1).hypervolume([record(7, 0.9)]) > 0
