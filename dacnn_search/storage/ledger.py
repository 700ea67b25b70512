"""The ledger of a run, `trials.jsonl`: append-only, one record per line, each on disk before anyone is told.

A record is a JSON object. Its line is

    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)

in UTF-8 with `,"check":"xxxxxxxx"` inserted before the closing brace, and a newline; xxxxxxxx is zlib's CRC-32 of the
text's bytes as 8 lower-case hex digits. To verify a line, take those 19 bytes out of it and compare. The first key of a
record is `sequence`, a whole number from 1 on that grows from line to line.

Readers distinguish two faults. An unfinished line at the end is an append that a crash cut short: nobody was told of
it, so it is dropped. Any other line that does not verify is a damaged record, and the ledger is refused.
"""

import datetime
import json
import os
import re
import shlex
import warnings
import zlib
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Self

from dacnn_search.common.errors import RunDirectoryError
from dacnn_search.common.files import write_atomic

__all__ = ["Ledger", "LedgerWarning", "read_ledger"]

Record = dict[str, Any]

_BEGIN = b'{"sequence":'
_CHECK_INSIDE = re.compile(rb',"check":"[0-9a-f]{8}"\}.', re.DOTALL)
_CHECK = re.compile(rb',"check":"([0-9a-f]{8})"\}\Z')


class LedgerWarning(UserWarning):
    """A ledger was changed on opening: a torn last line cut off, or damaged lines left out by a repair."""


def read_ledger(path: Path, keys: Set[str] = frozenset()) -> list[Record]:
    """Return the records of the ledger at `path` without changing it; a torn last line is skipped.

    Raises RunDirectoryError if the file is missing or damaged, or a record lacks one of the `keys`.
    """
    contents = _read(path, keys)
    _refuse_damage(path, contents)
    return contents.records


class Ledger:
    """A ledger open for appending. The caller holds the lock of the run directory."""

    def __init__(self, path: Path, records: list[Record], size: int) -> None:
        """Continue the file at `path`, whose `size` bytes hold exactly these `records`; use `Ledger.open`."""
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._records = records
        self._size = size
        self._unfinished = False  # whether bytes of a broken append may lie behind the first `size` ones

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
        if not path.exists():
            write_atomic(path, b"")
        contents = _read(path, keys)
        if contents.damage and repair:
            _rewrite(path, contents)
        else:
            _refuse_damage(path, contents, advice)
            _mend_tail(path, contents)
        return cls(path, contents.records, sum(len(line) + 1 for line in contents.lines))

    @property
    def records(self) -> Sequence[Record]:
        """All records in the order of the file, as JSON gives them back."""
        return self._records

    def append(self, record: Mapping[str, Any]) -> Record:
        """Write `record` to disk under the next `sequence` number and return it as JSON gives it back.

        Raises ValueError or TypeError for values that JSON lacks (NaN and infinity too: write null) or a record with a
        `sequence` or `check` of its own, OSError if it can't be written; the ledger is then as before.
        """
        reserved = {"sequence", "check"} & record.keys()
        if reserved:
            raise ValueError(f"a record must leave {sorted(reserved)} to the ledger")
        sequence = self._records[-1]["sequence"] + 1 if self._records else 1
        text = _dump({"sequence": sequence, **record})
        written: Record = json.loads(text)
        line = _line(text)
        if self._unfinished:
            self._cut_back()
        self._unfinished = True
        try:
            _write_all(self._descriptor, line)
            os.fsync(self._descriptor)
        except BaseException:  # also Ctrl-C: a half-written line must not stay
            with suppress(OSError):  # the next append tries again, and a reader drops the torn line
                self._cut_back()
            raise
        self._size += len(line)
        self._records.append(written)
        self._unfinished = False
        return written

    def rewrite(self, records: Sequence[Record]) -> None:
        """Replace all records; their sequence numbers must grow. The file before is kept as `<name>.before-<n>`.

        Raises OSError.
        """
        lines = [_line(_dump(record)) for record in records]
        write_atomic(_free_name(self._path, "before"), self._path.read_bytes())
        write_atomic(self._path, b"".join(lines))
        self.close()
        self.__init__(self._path, list(records), sum(map(len, lines)))  # type: ignore[misc]

    def close(self) -> None:
        """Close the file; more than once does no harm."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _cut_back(self) -> None:
        os.ftruncate(self._descriptor, self._size)
        os.fsync(self._descriptor)
        self._unfinished = False


@dataclass
class _Contents:
    data: bytes  # the file as it is
    records: list[Record] = field(default_factory=list)  # of the lines that verify
    lines: list[bytes] = field(default_factory=list)  # those lines, without newlines
    damage: list[tuple[int, str]] = field(default_factory=list)  # line number from 1, broken rule
    torn: bool = False  # whether the last line is an append cut short


def _read(path: Path, keys: Set[str]) -> _Contents:
    try:
        contents = _Contents(path.read_bytes())
    except OSError as error:
        raise RunDirectoryError(f"{path} can't be read: {error.strerror}") from error
    *complete, tail = contents.data.split(b"\n")
    for number, line in enumerate(complete, 1):
        _add(contents, number, line, keys)
    if tail:
        contents.torn = _is_torn(tail)
        if not contents.torn:
            _add(contents, len(complete) + 1, tail, keys)
    return contents


def _is_torn(tail: bytes) -> bool:
    """Tell whether the bytes after the last newline are the beginning of a line, from an append that a crash cut short,
    or zeros, which some file systems leave. Whole lines without newlines between them are neither."""
    for line in (tail, tail[:-1]):
        try:
            _parse(line)
        except ValueError:
            continue
        return False
    begun = tail.startswith(_BEGIN[: len(tail)]) and _CHECK_INSIDE.search(tail) is None
    return begun or not tail.strip(b"\0")


def _add(contents: _Contents, number: int, line: bytes, keys: Set[str]) -> None:
    last = contents.records[-1]["sequence"] if contents.records else 0
    whole = line.removesuffix(b"\r")
    try:
        record = _parse(whole)
        if record["sequence"] <= last:
            raise ValueError(f"sequence must grow, but is {record['sequence']} after {last}")
        if missing := keys - record.keys():
            raise ValueError(f"a record of this ledger must have {', '.join(sorted(missing))}, but lacks it")
    except ValueError as error:
        contents.damage.append((number, str(error)))
        return
    if whole != line:  # an editor was here; a repair loses nothing
        contents.damage.append((number, "it must end with a newline alone, but ends with a carriage return too"))
    contents.records.append(record)
    contents.lines.append(whole)


def _parse(line: bytes) -> Record:
    """Return the record of a line without its newline. Raises ValueError with the rule it breaks."""
    match = _CHECK.search(line)
    if match is None:
        raise ValueError("every line must end with a check")
    text = line[: match.start()] + b"}"
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
    return record


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it has {name}")


def _refuse_damage(path: Path, contents: _Contents, advice: str | None = None) -> None:
    if not contents.damage:
        return
    advice = advice or f"--resume {shlex.quote(str(path.parent))} --repair"
    number, rule = contents.damage[0]
    more = f" (and {len(contents.damage) - 1} more)" if len(contents.damage) > 1 else ""
    raise RunDirectoryError(
        f"{path}:{number}: damaged line{more}: {rule}; to go on with the {len(contents.records)} records that are "
        f"whole: {advice}"
    )


def _rewrite(path: Path, contents: _Contents) -> None:
    aside = _free_name(path, "damaged")
    write_atomic(aside, contents.data)
    write_atomic(path, b"".join(line + b"\n" for line in contents.lines))
    dropped = contents.data.count(b"\n") + (not contents.data.endswith(b"\n")) - len(contents.records)
    warnings.warn(
        f"{path}: kept {len(contents.records)} records and dropped {dropped} damaged lines, "
        f"the first at line {contents.damage[0][0]}; the damaged file is {aside}",
        LedgerWarning,
        stacklevel=3,
    )


def _free_name(path: Path, label: str) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.{label}-{number}")).exists():
        number += 1
    return aside


def _mend_tail(path: Path, contents: _Contents) -> None:
    if contents.data.endswith(b"\n") or not contents.data:
        return
    with path.open("r+b", buffering=0) as file:
        if contents.torn:
            file.truncate(contents.data.rfind(b"\n") + 1)
        else:
            file.seek(0, os.SEEK_END)
            file.write(b"\n")
        os.fsync(file.fileno())
    if contents.torn:
        number = len(contents.lines) + 1
        warnings.warn(f"{path}:{number}: cut off an unfinished last line", LedgerWarning, stacklevel=3)


def _dump(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _line(text: str) -> bytes:
    body = text.encode()
    return body[:-1] + f',"check":"{_checksum(body)}"}}\n'.encode()


def _checksum(text: bytes) -> str:
    return f"{zlib.crc32(text):08x}"


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def now() -> str:
    """Return the time in UTC as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
