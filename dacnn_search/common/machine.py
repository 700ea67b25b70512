"""Facts about this machine: cores, GPUs, processor, package versions, the commit of a checkout."""

import contextlib
import importlib.metadata
import math
import os
import platform
import subprocess
from pathlib import Path

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # in microseconds: of CPU, of wall time
PACKAGES = ("torch", "torchvision", "ray", "optuna", "numpy", "plotly", "dacnn-search")


def package_versions() -> dict[str, str | None]:
    """Return the versions of the packages that results depend on; None for those that are not installed."""
    versions: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def processor_name() -> str:
    """Return the processor's name from Linux, elsewhere what Python knows."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def gpu_memory() -> int:
    """Return the bytes of memory of the smallest GPU here; 0 if nvidia-smi does not tell."""
    found = _output("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits").split()
    return min((int(mebibytes) for mebibytes in found if mebibytes.isdigit()), default=0) * 2**20


def gpu_names() -> list[str]:
    return _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()


def git_commit() -> str | None:
    """Return the commit of the checkout that this package is run from, if it is."""
    return _output("git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD") or None


def count_cores() -> int:
    """Return the number of CPU cores that this process may use, by its affinity and its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no such file, or no quota: "max"
        quota, period = map(int, CPU_QUOTA.read_text().split())
        cores = min(cores, math.ceil(quota / period))
    return max(1, cores)


def _output(*command: str) -> str:
    """Return the output of a program; nothing if it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
