"""Fit what the sampler knows before the first trial, from the tables of DACNN-Bench: `search/sampler/prior.json`.

    python benchmarks/fit_prior.py
    python benchmarks/fit_prior.py --without digits --output prior-without-digits.json

The weights of structure are those that explain, in all tables alike, which of two networks of equal size has the lower
error: ridge regression of log10 errors on the features, both less a cubic of log10 size, each table of unit variance
and equal weight. Then each table has a level, a slope by size and a scale of structure, whose means and deviations
over the tables are what a search on other data starts from. Errors are means over seeds, validation and test images.

Printed is, for each table, the rank correlation at equal size of its errors with what the other tables predict.
"""

import datetime
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from results_file import make_parser
from scipy.stats import spearmanr
from simulator import read_summary

from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import estimate_cost
from dacnn_search.search.sampler import prior
from dacnn_search.search.sampler.prior import FEATURES, WEIGHTS, structure_of

FOLDER = Path(__file__).parent / "dacnn_bench"
SOURCES = ("digits", "fashion", "tops", "shoes", "noisy", "cifar100-0", "cifar100-1", "cifar10")
SHORT = {"digits": 3, "fashion": 3, "cifar100-0": 2, "tops": 2}  # epochs of tables of short trainings
RIDGE = 0.3  # in shares of a table's weight
LEAST_ERROR = 1e-3
LEAST_STRUCTURE = 0.01  # of the scale of structure in a table
LEAST_DEVIATION = 0.2  # of other weights, as the tables are few


@dataclass(frozen=True)
class Source:
    """A table: of n networks the log10 sizes (n,), the features (n, f), the log10 errors as shares of that of guessing
    (n,), and what is added to these after a short training, nan where there is none."""

    sizes: np.ndarray
    features: np.ndarray
    errors: np.ndarray
    added: np.ndarray

    @property
    def explained(self) -> tuple[np.ndarray, np.ndarray]:
        """Features and errors at equal size, the latter of unit variance."""
        errors = at_equal_size(self.sizes, self.errors)
        return at_equal_size(self.sizes, self.features), errors / errors.std()


def read(name: str) -> Source:
    """Read a table and, if there is one, that of short trainings."""
    path = FOLDER / f"{name}.parquet"
    table = pyarrow.parquet.read_table(path)
    summary = read_summary(path)
    shape, classes = summary.input_shape, summary.num_classes
    texts = dict(zip(*(table[key].to_pylist() for key in ("fingerprint", "architecture")), strict=True))
    networks = {f: Architecture.from_dict(json.loads(text)) for f, text in texts.items()}
    costs = {f: estimate_cost(network, shape, classes) for f, network in networks.items()}
    errors = errors_of(path, classes)
    short = errors_of(path.with_name(f"{name}-{SHORT[name]}.parquet"), classes) if name in SHORT else {}
    return Source(
        np.array([np.log10(cost.parameters) for cost in costs.values()]),
        np.array([structure_of(networks[f], cost) for f, cost in costs.items()]),
        np.array([errors[f] for f in costs]),
        np.array([short.get(f, np.nan) - errors[f] for f in costs]),
    )


def errors_of(path: Path, classes: int) -> dict[str, float]:
    """Return the log10 of the mean final error of each network, as a share of that of guessing."""
    columns = pyarrow.parquet.read_table(path).to_pydict()
    accuracies = defaultdict(list)
    for row, fingerprint in enumerate(columns["fingerprint"]):
        accuracies[fingerprint] += [columns[f"{part}_accuracy"][row][-1] for part in ("validation", "test")]
    guessing = 1 - 1 / classes
    return {f: float(np.log10(max(1 - np.mean(of), LEAST_ERROR) / guessing)) for f, of in accuracies.items()}


def at_equal_size(sizes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return values (n,) or (n, f) less a cubic of log10 size."""
    powers = np.vander(sizes - sizes.mean(), 4)
    return values - powers @ np.linalg.lstsq(powers, values, rcond=None)[0]


def fit_structure(sources: list[Source]) -> np.ndarray:
    """Return the weights of features, (f,)."""
    pairs = [source.explained for source in sources]
    spread = np.sqrt(np.mean([(x**2).mean(axis=0) for x, _ in pairs], axis=0)) + 1e-9
    squares = np.mean([(x / spread).T @ (x / spread) / len(x) for x, _ in pairs], axis=0)
    products = np.mean([(x / spread).T @ y / len(x) for x, y in pairs], axis=0)
    return np.linalg.solve(squares + RIDGE * np.eye(len(spread)), products) / spread


def fit_weights(sources: list[Source], structure: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return means and standard deviations of the trend's weights over the tables.

    Structure matters much more in some tables than in others: its mean is geometric, and its deviation as large.
    """
    rows = defaultdict(list)
    for source in sources:
        sizes = source.sizes - (source.sizes.min() + source.sizes.max()) / 2
        line = np.stack([np.ones(len(sizes)), sizes], axis=1)
        features, errors = (at_equal_size(source.sizes, values) for values in (source.features, source.errors))
        sums = features @ structure
        rows["structure"].append(max(sums @ errors / (sums @ sums), LEAST_STRUCTURE))
        for names, values in ((("level", "slope"), source.errors), (("short_level", "short_slope"), source.added)):
            known = np.isfinite(values)
            if known.any():
                fitted = np.linalg.lstsq(line[known], values[known], rcond=None)[0]
                for name, value in zip(names, fitted, strict=True):
                    rows[name].append(value)
    weights = {name: (float(np.mean(rows[name])), max(float(np.std(rows[name])), LEAST_DEVIATION)) for name in WEIGHTS}
    scale = float(np.exp(np.mean(np.log(rows["structure"]))))
    return weights | {"structure": (scale, scale)}


def fit(sources: dict[str, Source]) -> dict[str, Any]:
    """Return the contents of `prior.json`."""
    structure = fit_structure(list(sources.values()))
    weights = fit_weights(list(sources.values()), structure)
    return {
        "made": {
            "by": "benchmarks/fit_prior.py",
            "date": datetime.date.today().isoformat(),
            "tables": {name: len(source.sizes) for name, source in sources.items()},
        },
        "structure": {name: round(float(weight), 5) for name, weight in zip(FEATURES, structure, strict=True)},
        "weights": {name: [round(value, 5) for value in both] for name, both in weights.items()},
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--without", nargs="+", default=[], choices=SOURCES, help="tables to leave out")
    default = Path(prior.__file__).with_name(prior.FILE)
    parser.add_argument("--output", type=Path, default=default, help="(default: the file of the package)")
    options = parser.parse_args()
    sources = {name: read(name) for name in SOURCES if name not in options.without}
    for name, source in sources.items():
        others = fit_structure([other for key, other in sources.items() if key != name])
        features, errors = source.explained
        print(f"{name:12} {len(errors):5} networks, rank correlation {spearmanr(features @ others, errors)[0]:.2f}")
    options.output.write_text(json.dumps(fit(sources), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
