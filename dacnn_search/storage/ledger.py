"""The ledger of a run, `trials.jsonl`: append-only, one record per line, each on disk before anyone is told.

A record is a JSON object. Its line is

    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)

in UTF-8 with `,"check":"xxxxxxxx"` inserted before the closing brace, and a newline; xxxxxxxx is zlib's CRC-32 of the
text's bytes as 8 lower-case hex digits. To verify a line, take those 19 bytes out of it and compare. The first key of a
record is `sequence`, a whole number from 1 on that grows from line to line.

Readers distinguish two faults. An unfinished line at the end is an append that a crash cut short: nobody was told of
it, so it is dropped. Any other line that does not verify is a damaged record, and the ledger is refused.

Records of older versions are given back in today's words; their lines stay as they are.
"""

import datetime
import itertools
import json
import os
import re
import shlex
import warnings
import zlib
from collections.abc import Mapping, Sequence, Set
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Self

from dacnn_search.common.errors import RunDirectoryError
from dacnn_search.common.files import write_atomic
from dacnn_search.network.architecture import SHORTCUTS_OF_RESIDUAL

Record = dict[str, Any]

_BEGIN = b'{"sequence":'
_CHECK = re.compile(rb',"check":"([0-9a-f]{8})"\}')


class LedgerWarning(UserWarning):
    """A ledger was changed on opening: a torn last line cut off, or damaged lines left out by a repair."""


def read_ledger(path: Path, keys: Set[str] = frozenset()) -> list[Record]:
    """Return the records of a ledger, which is not changed: none if it is missing; a torn last line is skipped.

    Raises RunDirectoryError if the file is damaged or can't be read, or a record lacks one of the `keys`.
    """
    return [_in_todays_words(record) for record in _read(path, keys).records]


class Ledger(AbstractContextManager["Ledger"]):
    """A ledger open for appending. The caller holds the lock of the run directory."""

    def __init__(self, path: Path, records: list[Record]) -> None:
        """Continue the file at `path`, which holds these `records`; use `Ledger.open`."""
        self.records = records  # in the order of the file, as JSON gives them back
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._size = path.stat().st_size
        self._unfinished = False  # a broken append may have left a part of its line

    @classmethod
    def open(cls, path: Path, keys: Set[str] = frozenset(), *, repair: bool = False, advice: str | None = None) -> Self:
        """Verify the ledger at `path`, or start one, and make it ready for appending.

        A torn last line is cut off with a LedgerWarning; one that lacks only its newline is kept. Damage raises
        RunDirectoryError with file and line.

        Args:
            keys: The keys that every record must have.
            repair: Rewrite a damaged ledger with the lines that verify. The damaged file is kept as
                `<name>.damaged-<n>`, and a LedgerWarning tells how many lines were dropped.
            advice: How a user asks for the repair; by default as for a run directory.
        """
        contents = _read(path, keys, repair, advice)
        records, lines = contents.records, contents.lines
        if contents.damage:
            aside = _free_name(path, "damaged")
            write_atomic(aside, contents.data)
            warnings.warn(
                f"{path}: kept {len(records)} records and dropped {lines - len(records)} damaged lines, "
                f"the first at line {contents.damage[0][0]}; the damaged file is {aside}",
                LedgerWarning,
                stacklevel=2,
            )
        elif contents.torn:
            warnings.warn(f"{path}:{lines}: cut off an unfinished last line", LedgerWarning, stacklevel=2)
        whole = b"".join(map(_line, records))
        if whole != contents.data or not path.exists():
            write_atomic(path, whole)
        return cls(path, [_in_todays_words(record) for record in records])

    def append(self, record: Mapping[str, Any]) -> Record:
        """Write `record` to disk under the next `sequence` number and return it as JSON gives it back.

        Raises ValueError or TypeError for values that JSON lacks (NaN and infinity too: write null) or a record with a
        `sequence` or `check` of its own, OSError if it can't be written; the ledger is then as before.
        """
        if reserved := {"sequence", "check"} & record.keys():
            raise ValueError(f"a record must leave {sorted(reserved)} to the ledger")
        sequence = self.records[-1]["sequence"] + 1 if self.records else 1
        line = rest = _line({"sequence": sequence, **record})
        written: Record = json.loads(line)
        del written["check"]
        if self._unfinished:
            os.ftruncate(self._descriptor, self._size)
        self._unfinished = True
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except BaseException:  # also Ctrl-C: a half-written line must not stay
            with suppress(OSError):  # the next append tries again, and a reader drops the torn line
                os.ftruncate(self._descriptor, self._size)
                os.fsync(self._descriptor)
                self._unfinished = False
            raise
        self._unfinished = False
        self._size += len(line)
        self.records.append(written)
        return written

    def rewrite(self, records: Sequence[Record]) -> None:
        """Replace all records; their sequence numbers must grow. The file before is kept as `<name>.before-<n>`.

        Do nothing if the ledger has these records already. Raises OSError.
        """
        if list(records) == self.records:
            return
        whole = b"".join(map(_line, records))
        write_atomic(_free_name(self._path, "before"), self._path.read_bytes())
        write_atomic(self._path, whole)
        self.close()
        self.__init__(self._path, list(records))  # type: ignore[misc]

    def close(self) -> None:
        """Close the file; more than once does no harm."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __exit__(self, *_: object) -> None:
        self.close()


class _Contents(NamedTuple):
    data: bytes  # the file as it is
    lines: int
    torn: bool  # whether the last line is an append cut short
    records: list[Record]  # of the lines that verify
    damage: list[tuple[int, str]]  # line number from 1, broken rule


def _read(path: Path, keys: Set[str], repair: bool = False, advice: str | None = None) -> _Contents:
    """Read and verify a ledger. Damage raises RunDirectoryError unless it is to be repaired."""
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise RunDirectoryError(f"{path} can't be read: {error.strerror}") from error
    *lines, tail = data.split(b"\n")
    # An append cut short is the beginning of a line without its check; some file systems leave zeros.
    begun = tail.startswith(_BEGIN[: len(tail)]) and not _CHECK.search(tail)
    torn = bool(tail) and (begun or not tail.strip(b"\0"))
    if tail and not torn:
        lines.append(tail)
    records: list[Record] = []
    damage: list[tuple[int, str]] = []
    for number, line in enumerate(lines, 1):
        whole = line.removesuffix(b"\r")
        try:
            records.append(_parse(whole, records[-1]["sequence"] if records else 0, keys))
        except ValueError as error:
            damage.append((number, str(error)))
            continue
        if whole != line:  # an editor was here; a repair loses nothing
            damage.append((number, "it must end with a newline alone, but ends with a carriage return too"))
    if damage and not repair:
        advice = advice or f"--resume {shlex.quote(str(path.parent))} --repair"
        (number, rule), *others = damage
        more = f" (and {len(others)} more)" if others else ""
        raise RunDirectoryError(
            f"{path}:{number}: damaged line{more}: {rule}; to go on with the {len(records)} records that are whole: "
            f"{advice}"
        )
    return _Contents(data, len(lines) + torn, torn, records, damage)


def _parse(line: bytes, last: int, keys: Set[str]) -> Record:
    """Return the record of a line without its newline, after one with the sequence number `last`.

    Raises ValueError with the rule it breaks.
    """
    match = _CHECK.fullmatch(line[-20:])
    if match is None:
        raise ValueError("every line must end with a check")
    text = line[:-20] + b"}"
    expected, found = match[1].decode(), _checksum(text)
    if found != expected:
        raise ValueError(f"the text must have the check {expected}, but has {found}")
    try:
        record = json.loads(text.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the text must be JSON, but {error}") from error
    sequence = record.get("sequence") if isinstance(record, dict) else None
    if type(sequence) is not int or sequence < 1:
        raise ValueError(f"sequence must be a whole number from 1 on, but is {sequence!r}")
    if sequence <= last:
        raise ValueError(f"sequence must grow, but is {sequence} after {last}")
    if missing := keys - record.keys():
        raise ValueError(f"a record of this ledger must have {', '.join(sorted(missing))}, but lacks it")
    return record


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it has {name}")


def _free_name(path: Path, label: str) -> Path:
    names = (path.with_name(f"{path.name}.{label}-{number}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())


def _in_todays_words(record: Record) -> Record:
    """Return a record with `shortcuts` where older versions have `residual`."""

    def renamed(values: dict[str, Any]) -> dict[str, Any]:
        old = "residual"
        return {"shortcuts" if k == old else k: SHORTCUTS_OF_RESIDUAL[v] if k == old else v for k, v in values.items()}

    parts = {name: record.get(name, {}) for name in ("architecture", "choices")}
    return {**record, **{name: renamed(values) for name, values in parts.items() if "residual" in values}}


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    return text[:-1] + f',"check":"{_checksum(text)}"}}\n'.encode()


def _checksum(text: bytes) -> str:
    return f"{zlib.crc32(text):08x}"


def now() -> str:
    """Return the time in UTC as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
