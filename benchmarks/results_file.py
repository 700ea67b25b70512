"""The JSON files in which the benchmarks keep their figures."""

import argparse
import datetime
import json
import os
from pathlib import Path
from typing import Any

from dacnn_search.common.machine import package_versions, processor_name

RESULTS = Path(__file__).parent / "results"


def make_parser(
    description: str | None, quick: str | None = None, output: Path | None = None
) -> argparse.ArgumentParser:
    """Return a parser that shows a module's docstring, with the options `--quick` and `--output` where they apply."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if quick:
        parser.add_argument("--quick", action="store_true", help=quick)
    if output:
        parser.add_argument(
            "--output", type=Path, default=output, help=f"(default: {output.relative_to(RESULTS.parent)})"
        )
    return parser


def write_figures(path: Path, figures: dict[str, Any], **about: Any) -> None:
    """Write figures with what they depend on: the date, this machine, versions, and `about`. A `quick` run leaves the
    kept figures alone and writes beside them."""
    if about.get("quick") and path.parent == RESULTS:
        path = path.with_stem(f"{path.stem}-quick")
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": {"cpu": processor_name(), "cpus": os.cpu_count(), "load_at_end": os.getloadavg()[0]},
        "versions": package_versions(),
        "figures": figures,
        **about,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
