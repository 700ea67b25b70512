"""Numbers as people write and read them: `50k`, `1.2 M`, `4.9 kB`, `2h`, `3 min 20 s`."""

import re

_COUNT = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SECONDS = {"": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def parse_count(value: object) -> int:
    """Return `50000`, `"50k"` or `"1.5M"` as an integer. Raises ValueError for anything else."""
    return round(_parse(value, _COUNT, "a count such as 50000, 50k or 1.5M"))


def parse_bytes(value: object) -> int:
    """Return `"100kB"`, `"1.5 MB"`, `"64KiB"` or plain bytes as an integer. Raises ValueError for anything else."""
    return round(_parse(value, _BYTES, "a size such as 100kB, 1.5MB or 64KiB"))


def parse_duration(value: object) -> float:
    """Return `"90s"`, `"30m"`, `"2h"`, `"1d"` or plain seconds as seconds. Raises ValueError for anything else."""
    return _parse(value, _SECONDS, "a duration such as 90s, 30m or 2h")


def format_count(count: float) -> str:
    """Return three digits and a unit: `950`, `1.2 k`, `33.4 k`, `4.90 M`."""
    return _scaled(count, ("", "k", "M", "G", "T", "P"))


def format_bytes(size: float) -> str:
    """Return three digits and a decimal unit: `950 B`, `4.9 kB`, `19.6 MB`."""
    return _scaled(size, ("B", "kB", "MB", "GB", "TB"))


def format_duration(seconds: float) -> str:
    """Return the two largest units: `0.8 s`, `12 s`, `3 min 20 s`, `2 h 05 min`, `3 d 04 h`."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    for unit, size, smaller, smaller_size in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller_size:02d} {smaller}"
    return f"{whole} s"


def _parse(value: object, units: dict[str, int], expected: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(value))
    if isinstance(value, bool) or match is None or match[2].lower() not in units:
        raise ValueError(f"must be {expected}, but is {value!r}")
    return float(match[1]) * units[match[2].lower()]


def _scaled(value: float, units: tuple[str, ...]) -> str:
    index = 0
    while value >= 999.5 and index < len(units) - 1:
        value, index = value / 1000, index + 1
    text = f"{value:#.3g}".rstrip(".") if index else f"{value:.0f}"
    return f"{text} {units[index]}".rstrip()
