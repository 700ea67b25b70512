"""Write an `IntegerNetwork` as C99: header, code, weights, an example program, a Makefile and a README."""

import re
from collections import Counter
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np

from dacnn_search.common.files import write_atomic
from dacnn_search.common.machine import package_versions
from dacnn_search.common.templates import template_environment
from dacnn_search.export.c.quantization import FILTER_SHIFT, IntegerNetwork, Scaling
from dacnn_search.export.folder import escape_markdown
from dacnn_search.network.inference import FILTERED_BYTES, Convolution

TEMPLATES = Path(__file__).parent
LINE = 116  # characters of a row of numbers
OF_SHORTCUTS = {"projection", "shortcut", "shortcut_multiplier", "shortcut_channels"}  # fields of the C code's table


def write_source(folder: Path, network: IntegerNetwork, name: str, facts: Mapping[str, Any]) -> list[str]:
    """Write the C files of a network to a folder and return their names. `name` begins its function and macros.

    `facts` are `title`, `network` (in words), `told` (its accuracy, in words) and `classes` (their names).
    """
    environment = template_environment(TEMPLATES)
    environment.filters |= {"plain": escape_markdown, "comment": _comment, "quoted": _quoted, "numbers": _numbers}
    values = {
        **_values(network),
        **facts,
        "name": name,
        "NAME": name.upper(),
        "version": package_versions()["dacnn-search"],
    }
    folder.mkdir(exist_ok=True)
    files = []
    for template in sorted(TEMPLATES.glob("*.jinja")):
        file = template.stem.replace("network", name)
        write_atomic(folder / file, environment.get_template(template.name).render(values))
        files.append(file)
    return files


def _values(network: IntegerNetwork) -> dict[str, Any]:
    plan = network.plan
    unused = (OF_SHORTCUTS if plan.adds_history else {"history"}) | (set() if plan.mixes else {"anchors"})
    stem, last = plan.convolutions[0], network.classifier_scaling
    return {
        "height": stem.height,
        "width": stem.width,
        "channels": plan.channels,
        "constants": plan.weight_bytes + plan.table_bytes,
        "code_bytes": plan.code_bytes,
        "arena": plan.arena,
        "ram": plan.ram,
        "score_step": f"{network.score_step:#.6g}f",
        "offset_type": "uint16_t" if plan.short_offsets else "uint32_t",
        "tensors": _tensors(network),
        "convolutions": [_row(c, s, unused) for c, s in zip(plan.convolutions, network.scalings, strict=True)],
        "scales": np.concatenate([*map(_scales, network.scalings), _scales(last)]),
        "score_shift": last.shift,
        "score_offset_shift": last.offset_shift,
        "zero_points": network.zero_points,
        "adds_history": plan.adds_history,
        "mixes": plan.mixes,
        "separable": plan.separable,
        "filtered": plan.filtered_bytes // FILTERED_BYTES,
        "filter_shift": FILTER_SHIFT,
        "histories": np.concatenate([*map(_histories, plan.convolutions, network.scalings)]),
    }


def _tensors(network: IntegerNetwork) -> list[dict[str, Any]]:
    """Return the weights in the order of their first use."""
    uses = Counter(name for c in network.plan.convolutions for name in (*c.tensors, c.projection) if name)
    tensors = [(_identifier(name), network.kernels[name], count) for name, count in uses.items()]
    tensors.append(("classifier", network.classifier, 1))
    return [
        {"name": name, "shape": array.shape, "numbers": array.reshape(-1), "uses": uses}
        for name, array, uses in tensors
    ]


def _scales(scaling: Scaling) -> np.ndarray:
    pairs = np.stack([scaling.multipliers[0], scaling.offsets], axis=1)
    return np.concatenate([pairs.reshape(-1), *scaling.multipliers[1:]])


def _histories(c: Convolution, scaling: Scaling) -> np.ndarray:
    """Return the multipliers of the last inputs that a convolution adds in the order of their places in the arena."""
    newest = c.source // (c.pixels * c.in_channels)
    return np.array([scaling.history[(newest - place) % c.history] for place in range(c.history)], np.int32)


def _row(c: Convolution, scaling: Scaling, unused: Set[str]) -> dict[str, Any]:
    """Return the fields of a convolution's entry in the C code's table, in their order."""
    flags = {
        "POOL": c.pool,
        "MOVE": c.move,
        "IN_PLACE": c.in_place,
        "IDENTITY": c.shortcut == "identity",
        "PROJECTION": c.shortcut == "projection",
        "SEPARABLE": c.separable,
    }
    fields = {
        "kernel": f"AT({_identifier(c.tensors[0])})",
        "projection": f"AT({_identifier(c.projection)})" if c.projection else 0,
        "source": c.source,
        "target": c.target,
        "shortcut": c.shortcut_at,
        "scratch": c.scratch,
        "shortcut_multiplier": scaling.identity,
        "height": c.height,
        "width": c.width,
        "in_channels": c.in_channels,
        "out_channels": c.out_channels,
        "shortcut_channels": c.shortcut_channels,
        "side": c.side,
        "shift": scaling.shift,
        "offset_shift": scaling.offset_shift,
        "history": c.history,
        "anchors": len(c.kernels),
        "flags": " | ".join(name for name, is_set in flags.items() if is_set) or "0",
    }
    return {name: value for name, value in fields.items() if name not in unused}


def _identifier(tensor: str) -> str:
    """Return a tensor's name as a C identifier: `anchor1`, `block2_layer0_regulator`, `block3_projection`."""
    name = tensor.removeprefix("kernels.").removesuffix(".convolution.weight")
    return name.replace("blocks.", "block").replace(".layers.", "_layer").replace(".", "_")


def _comment(text: str) -> str:
    """Return a text that can stand in a C comment: on one line, in ASCII, without its end."""
    line = " ".join(text.split()).encode("ascii", "replace").decode()
    return line.replace("\\", "/").replace("*/", "* /").replace("/*", "/ *")


def _quoted(text: str) -> str:
    """Return a text as a C string, on one line, in UTF-8."""
    line = re.sub(r"[\x00-\x1f\x7f]", " ", text)
    plain = re.compile(rb"[A-Za-z0-9 _.,:;+()\[\]<>=/'&!-]")
    return '"' + "".join(chr(b) if plain.match(bytes([b])) else f"\\{b:03o}" for b in line.encode()) + '"'


def _numbers(values: np.ndarray) -> str:
    """Return numbers as rows of C source."""
    rows, row = [], ""
    for number in map(str, values.tolist()):
        if len(row) + len(number) > LINE:
            rows.append(row)
            row = ""
        row += f"{number},"
    return "\n    ".join([*rows, row.rstrip(",")])
