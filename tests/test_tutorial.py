import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dacnn_search.export.c.compiler import HOST_TOOLS, QEMU_TOOLS

DOCS = Path(__file__).parents[1] / "docs"
TOOLS = {**HOST_TOOLS, **QEMU_TOOLS}


def blocks_of(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"^```(bash|python)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def run_block(language, code, folder):
    """Run a block as a reader would, in a folder; return what it prints."""
    command = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run([*command, code], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_block_of_the_tutorial_runs_in_an_empty_folder(tmp_path):
    pytest.importorskip("onnxruntime")
    *blocks, on_this_computer = blocks_of("tutorial.md")
    assert len(blocks) == 11
    outputs = [run_block(*block, tmp_path) for block in blocks]
    card, predictions, answer = outputs[4:7]
    assert "| `model-int8.onnx` |" in card
    assert predictions.count(".png") == 5
    assert answer.strip() == "three"
    if all(map(shutil.which, HOST_TOOLS)):
        lines = run_block(*on_this_computer, tmp_path).splitlines()
        assert sum("\tthree\t" in line for line in lines) > len(lines) / 2


@pytest.mark.mcu
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"needs {', '.join(TOOLS)}")
def test_every_block_of_the_way_to_a_microcontroller_runs_in_an_empty_folder(tmp_path):
    blocks = blocks_of("microcontroller.md")
    assert len(blocks) == 10
    outputs = [run_block(*block, tmp_path) for block in blocks]
    exported, here, there = outputs[3], outputs[6], outputs[8]
    assert "on cortex-m4: " in exported
    names = [line.split("\t")[1] for line in here.splitlines() if "\t" in line]
    assert sum(name == str(number % 10) for number, name in enumerate(names)) >= 16
    assert int(there.rsplit("instructions per image: ", 1)[1]) > 0
    looked = look_at(tmp_path, 20)
    assert all(name in (found, None) for name, found in zip(looked, names, strict=True))
    assert looked.count(None) < 10


def look_at(folder, images):
    """What `look` of the page, which the last block wrote, says of the pictures in images.bin."""
    run_block("bash", "cc -shared -fPIC -Ichip -o look.so look.c chip/digits.c", folder)
    look = ctypes.CDLL(str(folder / "look.so")).look
    look.restype = ctypes.c_char_p
    pixels = (folder / "images.bin").read_bytes()
    size = len(pixels) // images
    found = [look(pixels[start : start + size]) for start in range(0, len(pixels), size)]
    return [name and name.decode() for name in found]
