"""How long a search still takes: by the cost of its networks, then by what its trials took."""

from dacnn_search.search.remaining import RemainingTime


def ended(*times, seconds=4.0):
    return [{"finished": time, "seconds": seconds} for time in times]


def test_before_a_trial_has_ended_the_cost_of_the_networks_counts():
    remaining = RemainingTime([], 10)
    assert remaining.seconds() is None
    remaining.expect(6.0, 2)
    assert remaining.seconds() == 30.0


def test_the_start_of_ray_does_not_count():
    """The first trial ends after a minute, of which it trained for four seconds."""
    records = []
    remaining = RemainingTime(records, 10)
    remaining.expect(None, 1)
    records += ended(60.0)
    assert remaining.seconds() == 9 * 4.0
    records += ended(65.0, 70.0)
    assert remaining.seconds() == 7 * 5.0


def test_trials_of_earlier_sessions_count_as_done_alone():
    records = ended(10.0, 20.0)
    remaining = RemainingTime(records, 6)
    remaining.expect(3.0, 1)
    assert remaining.seconds() == 4 * 3.0
    records += ended(100.0, 107.0)
    assert remaining.seconds() == 2 * 7.0


def test_a_third_of_the_way_a_wrong_estimate_is_corrected_once():
    records = []
    remaining = RemainingTime(records, 9)
    remaining.expect(1.0, 1)
    records += ended(60.0, 64.0)
    assert remaining.correction() is None  # too early
    records += ended(68.0)
    assert remaining.correction() == ("trials take longer than expected: the search takes about 36 s, not 9.0 s")
    records += ended(72.0)
    assert remaining.correction() is None


def test_a_good_estimate_is_not_corrected():
    records = ended()
    remaining = RemainingTime(records, 6)
    remaining.expect(4.0, 1)
    records += ended(60.0, 64.0, 69.0)
    assert remaining.correction() is None
