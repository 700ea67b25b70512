"""Ray, quiet and lean: started on this machine or joined by address, and how many trials it holds at once."""

import contextlib
import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Ray reads these when it is imported. What the user has set stays.
for _name, _value in {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # dacnn_search.signals has it
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the ledger has them
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial without an accuracy must not end the run
    "TUNE_GLOBAL_CHECKPOINT_S": "600",
    "MALLOC_ARENA_MAX": "2",  # workers that live long would grow without it
}.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402

from dacnn_search.errors import InputError  # noqa: E402
from dacnn_search.guard import guarded  # noqa: E402

__all__ = ["Slots", "check_address", "early_ray", "one_ray", "start_ray"]

TRIALS_PER_GPU = 4
GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd")  # there if the machine has a GPU
# Importing these takes a worker longer than all else. Told beforehand, it does so while the driver prepares the search.
PRELOADED = ("torch", "dacnn_search.worker", "dacnn_search.training")

_kept: contextlib.ExitStack | None = None  # what ends Ray, if that is not the `start_ray` that started it


@dataclass(frozen=True)
class Slots:
    """How many trials run at once, and what each takes of the cluster."""

    concurrency: int
    cpus_per_trial: float
    gpus_per_trial: float


@contextlib.contextmanager
def one_ray() -> Iterator[None]:
    """Let every `start_ray` within use the Ray that the first one starts; it ends with this context."""
    global _kept
    with contextlib.ExitStack() as _kept:
        try:
            yield
        finally:
            _kept = None


def early_ray(address: str | None, concurrency: int | None, verbose: bool) -> None:
    """Start, within `one_ray`, what `start_ray` will need, so that its processes get ready meanwhile. Raises
    InputError if the cluster can't be reached."""
    assert _kept is not None
    check_address(address)
    _start(_kept, address, concurrency, verbose)


def check_address(address: str | None) -> None:
    """Raise InputError if nothing answers at a `host:port`: Ray itself would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "/" not in host:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise InputError(f"a Ray cluster must answer at {address}, but: {error}") from error


@contextlib.contextmanager
def start_ray(
    address: str | None = None,
    concurrency: int | None = None,
    gpus_per_trial: float | None = None,
    verbose: bool = False,
) -> Iterator[Slots]:
    """Ray for the time of the context: that at `address`, the one already running in this process, or a new one.

    concurrency: by default a trial per CPU core, or, where there are GPUs, as many as they hold.
    gpus_per_trial: by default a quarter of a GPU where there is one.
    Raises InputError if the cluster can't be reached or does not have what is asked for.
    """
    with contextlib.ExitStack() as stack:
        _start(_kept or stack, address, concurrency, verbose)
        yield _slots(concurrency, gpus_per_trial)


def _start(to_end: contextlib.ExitStack, address: str | None, concurrency: int | None, verbose: bool) -> None:
    """Start or join Ray, unless that was done."""
    if not ray.is_initialized():
        folder = None if address else to_end.enter_context(guarded())
        _init(address, concurrency, folder, verbose)
        to_end.callback(ray.shutdown)


def _init(address: str | None, concurrency: int | None, folder: Path | None, verbose: bool) -> None:
    level = logging.INFO if verbose else logging.CRITICAL  # errors of trials are in the ledger, others are raised
    logging.getLogger("ray").setLevel(level)
    # A new cluster has a CPU per trial, so that more trials than cores can be asked for.
    cpus = None if address else max(concurrency or 0, os.cpu_count() or 1)
    try:
        with warnings.catch_warnings(), _own_signals():
            warnings.simplefilter("default" if verbose else "ignore")
            ray.init(
                address=address or "local",
                num_cpus=cpus,
                include_dashboard=False if address is None else None,
                log_to_driver=verbose,
                logging_level=level,
                _temp_dir=folder and str(folder),
                _system_config={"preload_python_modules": PRELOADED} if _all_train(cpus, concurrency) else None,
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"a Ray cluster must answer at {address or 'this machine'}, but: {error}") from error


def _all_train(cpus: int | None, concurrency: int | None) -> bool:
    """Whether most of the worker processes of a new cluster, one per CPU, will train: only then they preload."""
    on_gpus = any(Path(device).exists() for device in GPU_DEVICES)
    return cpus is not None and not on_gpus and cpus <= 2 * (concurrency or cpus)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Put back the handlers of signals that Ray replaces by its own."""
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _slots(concurrency: int | None, gpus_per_trial: float | None) -> Slots:
    resources = ray.cluster_resources()
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    if gpus_per_trial is None:
        gpus_per_trial = 1 / TRIALS_PER_GPU if gpus else 0.0
    if gpus_per_trial > gpus:
        raise InputError(f"gpus per trial must be at most the {gpus:g} of the cluster, but is {gpus_per_trial:g}")
    if concurrency is None:
        concurrency = int(gpus / gpus_per_trial + 1e-9) if gpus_per_trial else max(1, int(cpus))
    elif gpus_per_trial and concurrency * gpus_per_trial > gpus + 1e-9:
        raise InputError(
            f"concurrency times gpus per trial must be at most the {gpus:g} GPUs of the cluster, but is "
            f"{concurrency} x {gpus_per_trial:g}"
        )
    return Slots(concurrency, min(1.0, cpus / concurrency), gpus_per_trial)
