"""The ledger: what was appended is read back, and damage is never taken for a record."""

import json
import os
import signal
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from faulty import no_space
from hypothesis import given, settings
from hypothesis import strategies as st

from dacnn_search.common.errors import RunDirectoryError
from dacnn_search.storage import ledger as module
from dacnn_search.storage.ledger import Ledger, LedgerWarning, read_ledger

RECORDS: list[dict[str, Any]] = [
    {"accuracy": 0.5},
    {"name": "é\n\u2028", "curve": [1, None]},
    {"accuracy": 0.25},
]
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
KEYS = TEXT.filter(lambda key: key not in ("sequence", "check"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger of three records."""
    path = tmp_path / "trials.jsonl"
    with Ledger.open(path) as ledger:
        for record in RECORDS:
            ledger.append(record)
    return path


def numbered(*records: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"sequence": number, **record} for number, record in enumerate(records, 1)]


def line_of(text: str) -> bytes:
    """The line of a record's text, written down a second time from the description of the format."""
    return f'{text[:-1]},"check":"{zlib.crc32(text.encode()):08x}"}}\n'.encode()


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_new_ledger_is_an_empty_file(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "trials.jsonl") as ledger:
        assert list(ledger.records) == []
    assert names(tmp_path) == ["trials.jsonl"]
    assert read_ledger(tmp_path / "trials.jsonl") == []


def test_records_are_numbered_and_read_back(path: Path) -> None:
    assert read_ledger(path) == numbered(*RECORDS)
    assert next(iter(read_ledger(path)[0])) == "sequence"
    with Ledger.open(path) as ledger:
        assert list(ledger.records) == numbered(*RECORDS)
        assert ledger.append({"a": (1, 2)}) == {"sequence": 4, "a": [1, 2]}
        assert list(ledger.records) == read_ledger(path) == numbered(*RECORDS, {"a": [1, 2]})


def test_format_is_the_documented_one(path: Path) -> None:
    first, second, _ = path.read_bytes().splitlines(keepends=True)
    assert first == line_of('{"sequence":1,"accuracy":0.5}')
    assert second == line_of('{"sequence":2,"name":"é\\n\u2028","curve":[1,null]}')


def test_a_later_change_of_the_callers_record_changes_nothing(path: Path) -> None:
    record = {"curve": [1]}
    with Ledger.open(path) as ledger:
        ledger.append(record)
        record["curve"].append(2)
        assert ledger.records[-1]["curve"] == [1]


@pytest.mark.parametrize(
    "record",
    [
        {"a": float("nan")},
        {"a": [float("inf")]},
        {"a": {1}},
        {"sequence": 9},
        {"check": "x"},
        {"a": "\ud800"},
    ],
    ids=["nan", "inf", "set", "sequence", "check", "surrogate"],
)
def test_records_that_do_not_fit_are_refused_and_leave_no_trace(path: Path, record: dict[str, Any]) -> None:
    before = path.read_bytes()
    with Ledger.open(path) as ledger:
        with pytest.raises((ValueError, TypeError)):
            ledger.append(record)
        assert path.read_bytes() == before
        assert ledger.append({})["sequence"] == 4


@given(records=st.lists(st.dictionaries(KEYS, JSON, max_size=4), max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_json_comes_back(records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.jsonl"
    path.unlink(missing_ok=True)
    with Ledger.open(path) as ledger:
        for record in records:
            ledger.append(record)
        kept = list(ledger.records)
    assert json.dumps(read_ledger(path)) == json.dumps(kept) == json.dumps(numbered(*records))


def test_last_line_cut_at_every_byte(path: Path) -> None:
    content = path.read_bytes()
    start = content.rindex(b"\n", 0, -1) + 1
    for end in range(start, len(content) + 1):
        path.write_bytes(content[:end])
        whole = end in (start, len(content) - 1, len(content))  # no last line, or all of its text
        kept = 2 if end < len(content) - 1 else 3
        assert len(read_ledger(path)) == kept
        assert path.read_bytes() == content[:end]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with Ledger.open(path) as ledger:
                assert ledger.append({})["sequence"] == kept + 1
        expected = [] if whole else [f"{path}:3: cut off an unfinished last line"]
        assert [str(warning.message) for warning in caught] == expected
        assert read_ledger(path) == numbered(*RECORDS[:kept], {})


def test_only_line_cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:10])
    with pytest.warns(LedgerWarning, match=r"trials\.jsonl:1: cut off"), Ledger.open(path) as ledger:
        assert list(ledger.records) == []
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.replace(b"\n", b"\r"),
        lambda content: content.replace(b"\n", b""),
        lambda content: content[:60] + b"\xff" * 200,
        lambda content: b"\xff" + content[1:-9].replace(b"\n", b" "),
        lambda content: content + b"x",
        lambda content: content.replace(b"0.25", b"0.26").removesuffix(b"\n"),
    ],
)
def test_an_end_that_no_append_leaves_is_refused_and_left(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(changed := change(path.read_bytes()))
    with pytest.raises(RunDirectoryError, match=r"trials\.jsonl:\d: damaged line"):
        Ledger.open(path)
    assert path.read_bytes() == changed


def test_zeros_at_the_end_are_cut_off(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content + bytes(4096))
    with pytest.warns(LedgerWarning, match=r"trials\.jsonl:4: cut off"), Ledger.open(path) as ledger:
        assert len(ledger.records) == 3
    assert path.read_bytes() == content


def test_every_flipped_bit_is_refused(path: Path) -> None:
    content = path.read_bytes()
    for place in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(RunDirectoryError, match=r"trials\.jsonl:[123]: damaged line"):
                read_ledger(path)
    with pytest.raises(RunDirectoryError):
        Ledger.open(path)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [lines[0], lines[0]], "2: damaged line: sequence must grow, but is 1 after 1"),
        (lambda lines: [lines[1], lines[0]], "2: damaged line: sequence must grow, but is 1 after 2"),
        (lambda lines: [lines[0], b"\n", lines[1]], "2: damaged line: every line must end with a check"),
        (lambda lines: [b"x\n", b"y\n", lines[0]], r"1: damaged line \(and 1 more\): every line"),
        (lambda lines: [lines[0], lines[0][:-1]], "2: damaged line: sequence must grow, but is 1 after 1"),
        (lambda lines: [line_of('{"sequence":0}')], "1: .* must be a whole number from 1 on, but is 0"),
        (lambda lines: [line_of('{"sequence":true}')], "1: .* must be a whole number from 1 on, but is True"),
        (lambda lines: [line_of('{"a":1}')], "1: .* must be a whole number from 1 on, but is None"),
        (lambda lines: [line_of('{"sequence":1,"a":NaN}')], "1: .* the text must be JSON, but it has NaN"),
        (lambda lines: [line_of('{"sequence":1,}')], "1: .* the text must be JSON, but"),
        (lambda lines: [line_of('{"a":' + "[" * 100_000 + "}")], "1: .* the text must be JSON, but"),
    ],
)
def test_damage_is_named(path: Path, change: Callable[[list[bytes]], list[bytes]], message: str) -> None:
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(RunDirectoryError, match=rf"trials\.jsonl:{message}.*; to go on with .* --repair"):
        read_ledger(path)
    with pytest.raises(RunDirectoryError, match=message):
        Ledger.open(path)


def test_repair_keeps_the_rest_and_the_damaged_file(path: Path) -> None:
    content = path.read_bytes()
    first, second, third = content.splitlines(keepends=True)
    for number in (1, 2):
        damaged = first + second.replace(b"null", b"nulL") + third + b'{"sequen'
        path.write_bytes(damaged)
        expected = rf"kept 2 records and dropped 2 damaged lines, the first at line 2; .*\.damaged-{number}$"
        with pytest.warns(LedgerWarning, match=expected):
            ledger = Ledger.open(path, repair=True)
        with ledger:
            assert [record["sequence"] for record in ledger.records] == [1, 3]
            assert ledger.append({})["sequence"] == 4
        assert path.read_bytes() == first + third + line_of('{"sequence":4}')
        assert path.with_name(f"trials.jsonl.damaged-{number}").read_bytes() == damaged
    assert names(path.parent) == ["trials.jsonl", "trials.jsonl.damaged-1", "trials.jsonl.damaged-2"]


def test_repair_of_a_sound_ledger_changes_nothing(path: Path) -> None:
    before = path.read_bytes()
    with Ledger.open(path, repair=True) as ledger:
        assert len(ledger.records) == 3
    assert path.read_bytes() == before
    assert names(path.parent) == ["trials.jsonl"]


def test_missing_ledger_and_missing_folder(tmp_path: Path) -> None:
    assert read_ledger(tmp_path / "none") == []
    with pytest.raises(RunDirectoryError, match="can't be read: Is a directory"):
        read_ledger(tmp_path)
    with pytest.raises(FileNotFoundError):
        Ledger.open(tmp_path / "none" / "trials.jsonl")
    assert names(tmp_path) == []


def half_then_no_space() -> Callable[[int, bytes], int]:
    write = os.write
    calls = []

    def half(descriptor: int, data: bytes) -> int:
        calls.append(descriptor)
        return write(descriptor, data[: len(data) // 2]) if len(calls) == 1 else no_space()

    return half


@pytest.mark.parametrize("cut_works", [True, False])
@pytest.mark.parametrize("fault", ["write", "half a write", "fsync"])
def test_full_disk_leaves_a_sound_ledger_that_goes_on(path: Path, fault: str, cut_works: bool) -> None:
    before = path.read_bytes()
    with Ledger.open(path) as ledger:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module.os, fault.split()[-1], half_then_no_space() if "half" in fault else no_space)
            if not cut_works:
                patch.setattr(module.os, "ftruncate", no_space)
            with pytest.raises(OSError, match="No space left"):
                ledger.append({"lost": True})
        if cut_works:
            assert path.read_bytes() == before
        assert len(ledger.records) == 3
        ledger.append({"kept": True})
    assert read_ledger(path) == numbered(*RECORDS, {"kept": True})


def test_interrupt_while_writing_leaves_a_sound_ledger(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def interrupted(_: int) -> NoReturn:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with Ledger.open(path) as ledger:
        monkeypatch.setattr(module.os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ledger.append({"lost": True})
        assert path.read_bytes() == before


def test_short_writes_are_completed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(module.os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    with Ledger.open(path) as ledger:
        ledger.append({"text": "é" * 50})
    assert read_ledger(path)[-1]["text"] == "é" * 50


def test_record_is_on_disk_before_append_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync
    seen = []

    def noting(descriptor: int) -> None:
        seen.append(len(read_ledger(path)))
        fsync(descriptor)

    with Ledger.open(path) as ledger:
        monkeypatch.setattr(module.os, "fsync", noting)
        ledger.append({})
    assert seen == [4]


def test_append_does_not_read_or_rewrite_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    write = os.write

    def counting(descriptor: int, data: bytes) -> int:
        written.append(len(data))
        return write(descriptor, data)

    with Ledger.open(path) as ledger:
        monkeypatch.setattr(module.os, "write", counting)
        for _ in range(50):
            ledger.append({"a": 1})
    assert len(written) == 50
    assert max(written) < 60


def test_closed_ledger_refuses_to_append(path: Path) -> None:
    ledger = Ledger.open(path)
    ledger.close()
    ledger.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        ledger.append({})


def test_kill_while_appending_loses_nothing_that_was_told(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    program = (
        "import sys, warnings; from pathlib import Path; from dacnn_search.storage.ledger import Ledger\n"
        "warnings.simplefilter('ignore')\n"
        "ledger = Ledger.open(Path(sys.argv[1]))\n"
        "while True: print(ledger.append({'text': 'x' * 20000})['sequence'], flush=True)\n"
    )
    told = 0
    for lines in (1, 20, 35):
        command = [sys.executable, "-c", program, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(lines):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            process.wait()
            told += lines + len(process.stdout.read().splitlines())
        records = read_ledger(path)
        assert [record["sequence"] for record in records] == list(range(1, len(records) + 1))
        assert told <= len(records) <= told + 1  # one may be on disk that nobody was told of yet
        told = len(records)


def test_another_writer_is_noticed_and_loses_nothing(tmp_path):
    """As on a network disk that does not hold locks."""
    path = tmp_path / "ledger.jsonl"
    with Ledger.open(path) as one:
        one.append({"x": 1})
        with Ledger.open(path) as other:
            other.append({"x": 2})
        one.append({"x": 3})
    assert [b'"x":%d' % x in path.read_bytes() for x in (1, 2, 3)] == [True] * 3
    with pytest.raises(RunDirectoryError, match="sequence must grow, but is 2 after 2"):
        read_ledger(path)
