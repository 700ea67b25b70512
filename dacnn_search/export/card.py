"""Write the model card of a trained network, `README.md` in its folder, from `metrics.json` alone."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dacnn_search.common.units import format_bytes, format_count, format_duration
from dacnn_search.export.standalone import UNSHARING
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.drawing import LEGEND, draw

__all__ = ["model_card"]

TEMPLATE = Path(__file__).with_name("card.md.jinja")


def model_card(metrics: Mapping[str, Any], folder: str) -> str:
    """Return the card as Markdown. `folder` is the name of the network's folder."""
    from jinja2 import Environment  # here, since few commands write cards

    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters |= {
        "number": format,
        "bytes": format_bytes,
        "count": format_count,
        "duration": format_duration,
        "plain": _plain,
    }
    architecture = Architecture.from_dict(metrics["architecture"])
    values = {
        "files": {},
        **metrics,
        "folder": folder,
        "drawing": draw(architecture, tuple(metrics["input"]["shape"])),
        "legend": LEGEND,
        "unsharing": json.dumps(UNSHARING),
        "standard_error": _standard_error(metrics.get("training", {})),
    }
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(values)


def _standard_error(training: Mapping[str, Any]) -> float | None:
    """Return the standard error of the test accuracy; None if it is not known."""
    if training.get("test_accuracy") is None:
        return None
    # Two images more of each kind (Agresti and Coull): without them 100% would have no error at all.
    images = training["test_images"] + 4
    share = (training["test_images"] * training["test_accuracy"] + 2) / images
    return math.sqrt(share * (1 - share) / images)


def _plain(text: str) -> str:
    """Return a text on one line, with everything escaped that Markdown would take as markup."""
    line = " ".join(str(text).split())
    return "".join(f"\\{c}" if c in "\\`*[]<>|#" else c for c in line)
