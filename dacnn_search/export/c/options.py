"""What is asked of C code, and what is told of it. Needs no torch."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dacnn_search.common.errors import InputError
from dacnn_search.export.c.compiler import check_target
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import InputShape
from dacnn_search.network.inference import plan_inference

# Other files of the folder, goals of its Makefile, headers of C, and types of C that have a macro such as INT_WIDTH.
TAKEN = re.compile(
    "main|weights|run|size|qemu|clean|assert|complex|ctype|errno|fenv|float|inttypes|iso646|limits|locale|math|setjmp|signal"
    "|std(align|arg|atomic|bool|def|int|io|lib|noreturn)|strings?|tgmath|threads|time|u?char|w(char|ctype|int)|arm_acle"
    "|bool|schar|u?(shrt|l?long|int((_least|_fast)?(8|16|32|64)|max|ptr)?)|ptrdiff|sig_atomic"
)
NAME = "network"
TOLD_DROP = 0.01  # of the accuracy: a larger one is told
WHAT_MAY_HELP = (
    "What may help: another seed or more weight decay in the retraining, since one large weight makes the steps of its "
    "whole channel coarse, or another network of the front."
)


@dataclass(frozen=True)
class CodeOptions:
    """How C code is written. Raises InputError for a name that C does not allow, or an unknown target."""

    name: str = NAME  # begins the names of files, functions and macros
    arena: int | None = None  # bytes of RAM that the code may use
    targets: tuple[str, ...] = ()  # cores that its flash and RAM are measured for

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z][a-z0-9_]*", self.name) or TAKEN.fullmatch(self.name):
            rule = "have lower-case letters, digits and underscores, and not be taken by C or by another file or goal"
            raise InputError(f"a name in C must {rule}, but is {self.name!r}")
        for target in self.targets:
            check_target(target)

    def check(self, architecture: Architecture, input_shape: InputShape, classes: int) -> None:
        """Raise InputError for a network that can't be written as C or needs more memory."""
        if not architecture.batch_norm:
            raise InputError(f"C code needs a network with batch norm, but this one is: {architecture}")
        needed = plan_inference(architecture, input_shape, classes).ram
        if self.arena is not None and needed > self.arena:
            raise InputError(
                f"C code of this network needs {needed:,} bytes of RAM, but may have {self.arena:,}: {architecture}"
            )


def describe_code(code: Mapping[str, Any]) -> Iterator[str]:
    """Yield what to tell of C code, line by line, from its part of `metrics.json`."""
    accuracy = "" if code["accuracy"] is None else f"{code['accuracy']:.2%}"
    yield f"{'c/' + code['name'] + '.c':<39}{accuracy}".rstrip()
    yield f"    {code['flash']:,} bytes of flash, {code['ram']:,} of RAM"
    for target, size in code["targets"].items():
        yield f"    on {target}: {size['flash']:,} bytes of flash, {size['ram']:,} of RAM"
    if not code["compared"]:
        yield "    not compiled, as there is no C compiler here: the accuracy is that of the same arithmetic in NumPy"
    if loss := describe_loss(code):
        yield f"    {loss}"


def describe_loss(code: Mapping[str, Any]) -> str | None:
    """Return what 8 bits cost if that is more than a point of accuracy, and what helps; else None."""
    if code["accuracy"] is None or code["float_accuracy"] - code["accuracy"] <= TOLD_DROP:
        return None
    return f"8 bits cost {100 * (code['float_accuracy'] - code['accuracy']):.1f} points of accuracy. {WHAT_MAY_HELP}"
