"""Proposals: on disk before anyone gets them, made ahead, in an order that can be replayed."""

import itertools
from pathlib import Path

import pytest
from faulty import no_space
from pretended import TINY, Pretended, new_run

from dacnn_search.common.errors import RunDirectoryError
from dacnn_search.replay import replay
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.ledger import Ledger
from dacnn_search.storage.run_directory import RunDirectory


@pytest.fixture
def space(space_file) -> SearchSpace:
    return SearchSpace.from_yaml(space_file(TINY))


@pytest.fixture
def run(space, tmp_path) -> RunDirectory:
    return new_run(space, tmp_path)


def ahead(space: SearchSpace, run: RunDirectory, **settings) -> Pretended:
    """A search that makes its proposals ahead."""
    pretended = Pretended(space, run, **settings)
    pretended.search.looks_ahead = True
    return pretended


def train_two_at_once(pretended: Pretended) -> list[dict]:
    """Train all trials, two at a time; the later one ends first."""
    search, configs = pretended.search, {}
    for number in itertools.count():
        if (config := search.propose(str(number))) is not None:
            configs[str(number)] = config
        if not configs:
            break
        if len(configs) == 2 or config is None:
            key = max(configs)
            pretended.train(key, configs.pop(key))
    pretended.close()
    return list(pretended.ledger.records)


def test_a_proposal_is_on_disk_with_what_was_known_when_it_was_asked_for(space, run):
    pretended = ahead(space, run, trials=8)
    config = pretended.search.propose("a")
    pretended.train("a", config)
    assert pretended.search.propose("b")["trial"] == 1
    assert [(line["trial"], line["finished"]) for line in run.proposals[:2]] == [(0, 0), (1, 0)]


@pytest.mark.parametrize("sampler", ["tpe", "surrogate", "nsga2"])
def test_a_search_that_looks_ahead_can_be_replayed(space, run, sampler):
    records = train_two_at_once(ahead(space, run, trials=20, sampler=sampler))
    assert len({record["fingerprint"] for record in records}) == 20
    assert replay(run) == (20, 0, None)


def test_it_proposes_the_same_each_time(space, tmp_path):
    runs = [train_two_at_once(ahead(space, new_run(space, tmp_path), trials=14)) for _ in range(2)]
    first, second = [[record["fingerprint"] for record in records] for records in runs]
    assert first == second


def test_it_makes_no_proposal_that_nobody_needs(space, run):
    train_two_at_once(ahead(space, run, trials=5))
    assert len(run.proposals) == 5


def test_a_killed_search_goes_on_with_what_nobody_got(space, run):
    first = ahead(space, run, trials=8)
    first.train("0", first.search.propose("0"))
    first.search._proposer.close()  # so that it is known to be made; the search is killed
    made = [line["fingerprint"] for line in run.proposals]
    records = train_two_at_once(ahead(space, run, trials=8))
    assert [record["fingerprint"] for record in sorted(records, key=lambda record: record["trial"])][:2] == made
    assert sorted(record["trial"] for record in records) == list(range(8))
    assert replay(run) == (8, 0, None)


@pytest.mark.parametrize(
    ("name", "value", "options"),
    [("width", 5, "[3, 4, 6]"), ("depth_1", 99, "[1, 2, 3]"), ("sharing", None, "['netwo")],
)
def test_an_unfinished_proposal_of_no_network_of_the_space_is_an_error_in_one_line(space, run, name, value, options):
    interrupted = Pretended(space, run, trials=8)
    interrupted.search.propose("a")
    (line,) = interrupted.proposed.records
    interrupted.proposed.rewrite([{**line, "choices": {**line["choices"], name: value}}])
    interrupted.close()
    with pytest.raises(RunDirectoryError) as raised:
        Pretended(space, run, trials=8)
    message = str(raised.value)
    assert message.startswith(f"proposals.jsonl: trial 0 must be of the space: {name} must be one of {options}")
    assert message.endswith(f", but is {value!r}")


def test_what_was_made_ahead_waits_when_time_is_up(space, run):
    pretended = ahead(space, run, trials=8, time_budget=1000.0)
    pretended.train("a", pretended.search.propose("a"))
    pretended.search._begun -= 2000
    assert pretended.search.propose("b") is None
    assert pretended.search.over
    pretended.close()
    assert [proposal.trial for proposal, running in pretended.search._unfinished if not running] == [1]
    assert len(Pretended(space, run, trials=8).run()) == 8


def test_a_small_space_is_exhausted(space_file, tmp_path):
    text = TINY.replace("sections: {choice: [1, 2]}", "sections: 1").replace("{choice: [none, block]}", "none")
    text = text.replace("  sharing: {choice: [network, section]}\n", "").replace("{choice: [3, 4, 6]}", "4")
    three = SearchSpace.from_yaml(space_file(text))
    pretended = ahead(three, new_run(three, tmp_path), trials=10)
    assert len(train_two_at_once(pretended)) == 3
    assert pretended.search.exhausted
    assert pretended.search.over


def test_a_full_disk_is_told_when_the_proposal_is_needed(space, run: RunDirectory, monkeypatch: pytest.MonkeyPatch):
    pretended = ahead(space, run, trials=8)

    pretended.search.propose("a")
    pretended.search._proposer._thread.submit(int).result()  # the second is on disk
    with monkeypatch.context() as patched:
        patched.setattr(pretended.proposed, "append", no_space)
        assert pretended.search.propose("b")
        assert pretended.search.propose("c") is None
    assert pretended.search.failure == f"{run.proposals_file} can't be written: No space left on device"
    pretended.close()
    with Ledger.open(Path(run.proposals_file)) as proposed:
        assert [line["trial"] for line in proposed.records] == [0, 1]
