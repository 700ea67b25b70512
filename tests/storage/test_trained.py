"""Networks that were trained in full, and the front judged again on the test images."""

from pathlib import Path

import pandas as pd
import pytest

from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.search.report import write_tables
from dacnn_search.storage.trained import TrainedNetwork, beaten_on_test, judge


def network(trial, parameters, searched, *tested):
    common = {"trial": trial, "fingerprint": f"{trial:016x}", "parameters": parameters, "accuracy": searched}
    records = [{**common, "seed": seed, "test_accuracy": accuracy} for seed, accuracy in enumerate(tested)]
    sizes = (parameters, 10 * parameters, 4 * parameters, 2 * parameters, 500)
    return TrainedNetwork(Path(f"best/{trial}"), tuple(records), Architecture((Section(1, 8),)), trial, *sizes)


FRONT = [
    network(0, 100, 0.80, 0.79, 0.81),
    network(1, 200, 0.90, 0.86),
    network(2, 300, 0.91, 0.85),
    network(3, 400, 0.95, 0.94, 0.90),
]


def test_a_front_is_judged_on_the_mean_of_its_test_accuracies():
    assert [n.trial for n in beaten_on_test(FRONT)] == [2]
    assert judge(FRONT) == (  # the ranks are 1 2 3 4 and 1 3 2 4
        "on the test images 3 of 4 retrained networks stay on the front; beaten: trial 2; "
        "rank correlation of validation and test accuracy 0.80"
    )


def test_two_networks_have_no_rank_correlation_and_one_no_judgement():
    assert judge(FRONT[:2]) == "on the test images 2 of 2 retrained networks stay on the front"
    assert judge(FRONT[:1]) is None
    assert judge([network(0, 100, 0.8, None), network(1, 200, 0.9, None)]) is None


def test_equal_accuracies_have_no_rank_correlation():
    assert "correlation" not in judge([network(n, 100 + n, 0.9, 0.8 + n / 100) for n in range(3)])


def test_the_table_of_the_front_has_the_test_accuracies_of_the_networks_retrained(tmp_path):
    records = [
        {
            "sequence": trial + 1,
            "trial": trial,
            "fingerprint": f"{trial:016x}",
            "state": "COMPLETE",
            "parameters": parameters,
            "macs": 10 * parameters,
            "accuracy": accuracy,
            "loss": 0.1,
            "epochs": 2,
            "seconds": 1.0,
            "reason": None,
            "choices": {"width": 4},
            "architecture": {"sections": [{"depth": 1, "width": 4}]},
        }
        for trial, parameters, accuracy in ((0, 100, 0.8), (1, 200, 0.9), (2, 300, 0.91), (3, 400, 0.95))
    ]
    write_tables(tmp_path, records, [FRONT[0], FRONT[1], FRONT[2]])
    table = pd.read_csv(tmp_path / "front.csv").set_index("trial")
    assert table.test_accuracy.round(4).tolist()[:3] == [0.80, 0.86, 0.85]
    assert table.test_deviation[0] == pytest.approx(0.0141, abs=1e-4)
    assert table.seeds[0] == 2
    assert table.beaten_on_test.tolist()[:3] == [False, False, True]
    assert table.loc[3, ["test_accuracy", "test_deviation", "seeds", "beaten_on_test"]].isna().all()
    write_tables(tmp_path, records)
    assert "test_accuracy" not in pd.read_csv(tmp_path / "front.csv")
