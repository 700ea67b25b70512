"""Compile the C code of a network and run it, by its Makefile: here, and on Arm cores that QEMU simulates."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from dacnn_search.common.errors import ExportError, InputError

TARGETS = ("cortex-m0plus", "cortex-m4", "cortex-m33")  # the cores that the Makefile knows
# The programs that it needs, and their packages in Debian.
HOST_TOOLS = {"make": "make", "cc": "gcc"}
SIZE_TOOLS = {"make": "make", "arm-none-eabi-gcc": "gcc-arm-none-eabi libnewlib-arm-none-eabi"}
QEMU_TOOLS = {**SIZE_TOOLS, "qemu-system-arm": "qemu-system-arm"}
SECONDS = 900  # that compiling and running may take


def run_on_host(folder: Path, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (N, classes) int8 and classes (N,) int64, as the C code in a folder computes them here.

    `images` are (N, H, W, C) uint8. Like the other functions here, it compiles a copy of the folder. Raises InputError
    if a tool is missing, ExportError if the code does not compile or run.
    """
    return _read_scores(_make(folder, HOST_TOOLS, "run", images, "CC=cc"), images)


def run_in_qemu(folder: Path, target: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return scores and classes as `run_on_host` does, and instructions per image, as a core computes them in QEMU.

    Instructions are those of the classification alone, to the nearest 50 for each image. Raises what `run_on_host`
    raises, and InputError for an unknown target.
    """
    check_target(target)
    printed = _make(folder, QEMU_TOOLS, "qemu", images, f"CORE={target}")
    *_, instructions = printed.rsplit("instructions per image: ", 1)
    return *_read_scores(printed, images), int(instructions)


def measure_size(folder: Path, target: str) -> dict[str, int]:
    """Return the bytes of `flash` and `ram` that the C code in a folder takes on a core, without the example program.

    What it needs of the C library is not in them: copying memory and, on a Cortex-M0+, arithmetic with 64 bits. Raises
    what `run_in_qemu` raises.
    """
    check_target(target)
    printed = _make(folder, SIZE_TOOLS, "size", np.zeros(0, np.uint8), f"CORE={target}")
    text, data, bss = map(int, printed.splitlines()[-1].split()[:3])
    return {"flash": text + data, "ram": data + bss}


def check_target(target: str) -> None:
    """Raise InputError for an unknown target, or if the tools for it are missing."""
    if target not in TARGETS:
        raise InputError(f"a target of the C code is one of {', '.join(TARGETS)}, but is {target!r}")
    _check_tools(SIZE_TOOLS)


def compiles_here() -> bool:
    """Return True if there is what `run_on_host` needs."""
    return all(shutil.which(tool) for tool in HOST_TOOLS)


def _check_tools(tools: dict[str, str]) -> None:
    for tool, packages in tools.items():
        if shutil.which(tool) is None:
            raise InputError(f"{tool} must be installed (in Debian: apt install {packages})")


def _make(folder: Path, tools: dict[str, str], goal: str, images: np.ndarray, *settings: str) -> str:
    """Return what a goal of the Makefile prints, made in a copy of the folder, where images.bin holds the images."""
    _check_tools(tools)
    with tempfile.TemporaryDirectory(prefix="dacnn-c-") as name:
        for file in (folder / "Makefile", *folder.glob("*.[ch]")):
            shutil.copy(file, name)
        Path(name, "images.bin").write_bytes(images.tobytes())
        command = ["make", "--silent", goal, "IMAGES=images.bin", *settings]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=name, stdout=pipe, stderr=pipe, start_new_session=True) as process:
            try:
                printed, complaints = process.communicate(timeout=SECONDS)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)  # make and all that it started
                if isinstance(error, subprocess.TimeoutExpired):
                    raise ExportError(f"`make {goal}` of the C code took more than {SECONDS} seconds") from None
                raise
    if process.returncode:
        lines = complaints.decode(errors="replace").splitlines()
        reason = next((line for line in lines if "error" in line), (lines or ["?"])[0])
        raise ExportError(f"`make {goal}` of the C code failed: {reason.strip()}")
    return printed.decode(errors="replace")


def _read_scores(printed: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lines = [line for line in printed.split("\n") if "\t" in line]
    if len(lines) != len(images):
        raise ExportError(f"the C code printed {len(lines):,} results for {len(images):,} images")
    scores = np.array([line.rsplit("\t", 1)[1].split() for line in lines], np.int8)
    return scores, np.array([line.split("\t", 1)[0] for line in lines], np.int64)
