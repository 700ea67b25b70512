import dataclasses
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from c_networks import integer_network, random_images, write_c
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import architectures

from dacnn_search.common.errors import ExportError, InputError
from dacnn_search.export.c import compiler
from dacnn_search.export.c.compiler import run_on_host
from dacnn_search.network.architecture import Architecture, Section

STRICT = ["-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
SANITIZED = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"
SHAPE = (3, 9, 7)
SECTIONS = Section(3, 4, "layer"), Section(4, 6, "block")
EVERYTHING = Architecture(SECTIONS, "section", 2, "block", mixing="learned")
FAMILIES = {
    "shortcuts": Architecture(SECTIONS, "section", 2, "block"),
    "shortcuts and mixes": EVERYTHING,
    "histories": Architecture(SECTIONS, "second", 2, "history"),
    "histories and mixes": Architecture(SECTIONS, "section", 2, "history", mixing="learned", history=3),
    "separable kernels": Architecture(SECTIONS, "section", 1, "block", convolutions="separable"),
    "separable kernels and mixes": dataclasses.replace(EVERYTHING, convolutions="separable"),
    "separable kernels and histories": Architecture(SECTIONS, "none", 1, "history", convolutions="separable"),
}

NETWORKS = architectures().map(lambda architecture: dataclasses.replace(architecture, batch_norm=True))

needs_compiler = pytest.mark.skipif(not all(map(shutil.which, compiler.HOST_TOOLS)), reason="needs make and cc")


@pytest.fixture
def code(tmp_path):
    return write_c(tmp_path / "c", integer_network(EVERYTHING, SHAPE))


def with_flags(folder, flags):
    makefile = folder / "Makefile"
    makefile.write_text(makefile.read_text().replace("-O2", flags))
    return folder


def check_code(architecture, shape, images):
    """Compile a network's code with sanitizers and compare it with the reference, bit for bit."""
    network = integer_network(architecture, shape, seed=architecture.depth)
    with tempfile.TemporaryDirectory() as folder:
        scores, classes = run_on_host(with_flags(write_c(Path(folder), network), SANITIZED), images)
    expected_scores, expected_classes = network.scores(images)
    np.testing.assert_array_equal(scores, expected_scores)
    np.testing.assert_array_equal(classes, expected_classes)


@needs_compiler
@settings(max_examples=4)
@example(FAMILIES["shortcuts and mixes"], *SHAPE)
@example(FAMILIES["histories and mixes"], *SHAPE)
@example(FAMILIES["separable kernels"], *SHAPE)
@example(FAMILIES["separable kernels and mixes"], *SHAPE)
@example(FAMILIES["separable kernels and histories"], *SHAPE)
@given(NETWORKS, st.sampled_from([1, 3]), st.integers(4, 12), st.integers(4, 12))
def test_code_computes_what_the_reference_computes(architecture, channels, height, width):
    check_code(architecture, (channels, height, width), random_images(40, (channels, height, width)))


@pytest.mark.slow
@needs_compiler
@settings(max_examples=20)
@given(NETWORKS, st.sampled_from([1, 3]), st.integers(4, 12), st.integers(4, 12))
def test_code_computes_what_the_reference_computes_on_1000_images(architecture, channels, height, width):
    check_code(architecture, (channels, height, width), random_images(1000, (channels, height, width)))


@needs_compiler
@pytest.mark.parametrize("width", [1, 2])
def test_separable_kernels_of_few_channels(width):
    sections = (Section(2, width), Section(2, width + 1))
    check_code(Architecture(sections, shortcuts="block", convolutions="separable"), SHAPE, random_images(40, SHAPE))


@needs_compiler
@pytest.mark.parametrize("width", [1, 2])
def test_an_image_with_more_channels_than_the_network_takes_none_of_its_arena(width):
    architecture, shape = Architecture((Section(1, width), Section(2, width))), (3, 9, 7)
    plan = integer_network(architecture, shape).plan
    under_the_kernel, row = 9, 7  # pixels
    assert plan.arena == 9 * 7 * width + max(under_the_kernel * 3, (under_the_kernel + row) * width)
    check_code(architecture, shape, random_images(40, shape))


SIZES = """
#include "network.c"
#include <stdio.h>

int main(void)
{
    printf("%zu ", sizeof weights + sizeof scales + HISTORIES + sizeof convolutions + sizeof zero_points);
    printf("%zu", sizeof arena + FILTERED);
    return 0;
}
"""


@settings(max_examples=15)
@given(NETWORKS, st.sampled_from([1, 3]), st.integers(4, 12), st.integers(4, 12))
def test_code_declares_exactly_what_the_plan_says(architecture, channels, height, width):
    check_sizes(integer_network(architecture, (channels, height, width)))


@pytest.mark.parametrize("shortcuts", ["block", "history"])
def test_code_with_long_offsets_declares_what_the_plan_says(shortcuts):
    network = integer_network(Architecture((Section(2, 70), Section(1, 4)), "none", shortcuts=shortcuts), (1, 30, 30))
    assert not network.plan.short_offsets
    check_sizes(network)


def check_sizes(network):
    """Compare the bytes of constants and of all memory, by the compiler's `sizeof`, with the plan's."""
    with tempfile.TemporaryDirectory() as folder:
        code = write_c(Path(folder), network)
        histories = "sizeof histories" if network.plan.adds_history else "0"
        filtered = "sizeof filtered" if network.plan.separable else "0"
        (code / "sizes.c").write_text(SIZES.replace("HISTORIES", histories).replace("FILTERED", filtered))
        program = build_program(code, ("gcc", "-std=c99"), "sizes.c")
        printed = subprocess.run([program], capture_output=True, check=True).stdout
    plan = network.plan
    assert [int(number) for number in printed.split()] == [plan.weight_bytes + plan.table_bytes, plan.ram]


def build_program(folder, compiler, *sources):
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"{compiler[0]} is not installed")
    done = subprocess.run([*compiler, *STRICT, "-o", "program", *sources], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "program"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("compiler", [("gcc", "-std=c99"), ("clang", "-std=c99"), ("g++", "-xc++")], ids=" ".join)
def test_compilers_take_it_without_a_warning(tmp_path, family, compiler):
    code = write_c(tmp_path / "c", integer_network(FAMILIES[family], SHAPE))
    program = build_program(code, compiler, "main.c", "network.c")
    images = random_images(3, SHAPE)
    done = subprocess.run([program], input=images.tobytes(), capture_output=True, check=True)
    assert len(done.stdout.splitlines()) == 3


TWO = """
#include "first.h"
#include "second.h"
#include <stdio.h>

int main(void)
{
    static uint8_t pixels[FIRST_HEIGHT * FIRST_WIDTH * FIRST_CHANNELS];
    int8_t scores[FIRST_CLASSES > SECOND_CLASSES ? FIRST_CLASSES : SECOND_CLASSES];

    if (fread(pixels, sizeof pixels, 1, stdin) != 1)
        return 1;
    printf("%d %d", first_classify(pixels, scores), second_classify(pixels, scores));
    return 0;
}
"""


def test_two_networks_live_in_one_program(tmp_path):
    networks = integer_network(EVERYTHING, SHAPE, 5, seed=1), integer_network(Architecture((Section(2, 3),)), SHAPE, 4)
    for name, network in zip(("first", "second"), networks, strict=True):
        write_c(tmp_path / name, network, name)
    (tmp_path / "two.c").write_text(TWO)
    sources = ["-Ifirst", "-Isecond", "two.c", "first/first.c", "second/second.c"]
    program = build_program(tmp_path, ("gcc", "-std=c99"), *sources)
    images = random_images(8, SHAPE)
    for image in images:
        done = subprocess.run([program], input=image.tobytes(), capture_output=True, check=True)
        expected = [int(network.scores(image[None])[1][0]) for network in networks]
        assert [int(number) for number in done.stdout.split()] == expected


@needs_compiler
def test_no_name_breaks_out_of_the_code(tmp_path):
    names = ['"); exit(1); ("', "собака\n犬", "*/ int x; /*", "what??/", "\\", "100 %s %n"]
    title = "*/ #error \\ ??/\n#error *\\ #error"
    network = integer_network(EVERYTHING, SHAPE, len(names))
    folder = write_c(tmp_path / "c", network, title=title, told=title, classes=names)
    images = random_images(40, SHAPE)
    (folder / "images.bin").write_bytes(images.tobytes())
    command = ["make", "--silent", "run", "IMAGES=images.bin"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=True, encoding="utf-8")
    printed = [line.split("\t")[1] for line in done.stdout.splitlines()]
    names[1] = "собака 犬"
    assert printed == [names[number] for number in network.scores(images)[1]]
    assert len(set(printed)) > 1


@needs_compiler
def test_a_compiler_in_the_environment_is_not_taken(code, monkeypatch):
    monkeypatch.setenv("CC", "no-compiler")  # such as one for another machine
    assert len(run_on_host(code, random_images(2, SHAPE))[1]) == 2


def test_the_step_of_scores_is_a_number_in_c(tmp_path):
    network = dataclasses.replace(integer_network(EVERYTHING, SHAPE), score_step=1.0)
    folder = write_c(tmp_path, network)
    (folder / "step.c").write_text('#include "network.h"\nint main(void) { return NETWORK_SCORE_STEP != 1; }\n')
    subprocess.run([build_program(folder, ("gcc", "-std=c99"), "step.c")], check=True)


@needs_compiler
def test_program_refuses_half_an_image_and_a_missing_file(code):
    def run(*arguments, **options):
        return subprocess.run(["./network", *arguments], cwd=code, capture_output=True, text=True, **options)

    subprocess.run(["make", "--silent"], cwd=code, check=True)
    assert run("nowhere.bin").returncode == 2
    (code / "half.bin").write_bytes(bytes(9 * 7 * 3 + 5))
    done = run("half.bin")
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == 1
    assert "5 bytes" in done.stderr


@needs_compiler
def test_code_that_fails_is_told_in_one_line(code):
    (code / "network.c").write_text("#error no code\n")
    with pytest.raises(ExportError, match=r"`make run` of the C code failed: .*no code$"):
        run_on_host(code, random_images(2, SHAPE))


@needs_compiler
def test_code_that_hangs_is_ended(code, monkeypatch, tmp_path):
    monkeypatch.setattr(compiler, "SECONDS", 3)
    (code / "network.c").write_text("int unused;\n")  # so that compiling takes little of them
    pid = tmp_path / "pid"
    (code / "main.c").write_text(
        f'#include <stdio.h>\n#include <unistd.h>\nint main(void)\n{{\n    FILE *f = fopen("{pid}", "w");\n'
        '    fprintf(f, "%d", (int)getpid());\n    fclose(f);\n    for (;;)\n        pause();\n}\n'
    )
    with pytest.raises(ExportError, match="more than 3 seconds"):
        run_on_host(code, random_images(2, SHAPE))
    status = Path("/proc", pid.read_text(), "stat")
    while status.exists() and status.read_text().split()[2] != "Z":  # until it is gone, or waits for init to notice
        time.sleep(0.1)


def test_missing_tools_and_unknown_targets_are_told(code, monkeypatch):
    with pytest.raises(InputError, match="one of cortex-m0plus, cortex-m4, cortex-m33, but is 'avr'"):
        compiler.measure_size(code, "avr")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"make must be installed \(in Debian: apt install make\)"):
        run_on_host(code, random_images(2, SHAPE))
