import pytest

from dacnn_search.common.units import (
    format_bytes,
    format_count,
    format_duration,
    parse_bytes,
    parse_count,
    parse_duration,
)


@pytest.mark.parametrize(
    ("text", "count"), [(50000, 50_000), ("50k", 50_000), ("1.5M", 1_500_000), (" 2 G ", 2 * 10**9), ("7", 7)]
)
def test_counts(text, count):
    assert parse_count(text) == count


@pytest.mark.parametrize(
    ("text", "size"), [("100kB", 100_000), ("1.5 MB", 1_500_000), ("64KiB", 65_536), (12, 12), ("3 B", 3)]
)
def test_sizes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400), (1.5, 1.5)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("value", ["", "k", "5 apples", "-3", True, None, "1e3", "nan", [5]])
def test_anything_else_is_refused_with_its_value(value):
    for parse in (parse_count, parse_bytes, parse_duration):
        with pytest.raises(ValueError, match=r"must be a .* but is"):
            parse(value)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (950, "950"), (1_234, "1.23 k"), (33_400, "33.4 k"), (999_600, "1.00 M"), (4_900_000, "4.90 M")],
)
def test_counts_for_people(count, text):
    assert format_count(count) == text


def test_sizes_for_people():
    assert [format_bytes(size) for size in (12, 4_900, 19_600_000)] == ["12 B", "4.90 kB", "19.6 MB"]


def test_durations_for_people():
    times = {0.84: "0.8 s", 12: "12 s", 59.6: "1 min 00 s", 200: "3 min 20 s", 7500: "2 h 05 min", 270_000: "3 d 03 h"}
    assert {seconds: format_duration(seconds) for seconds in times} == times
