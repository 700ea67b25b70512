"""Count the trials and epochs that searches take to find the front: samplers and stopping rules on DACNN-Bench.

    python benchmarks/search_efficiency.py --quick
    python benchmarks/search_efficiency.py --tables fashion --seeds 20 --output results/efficiency
    python benchmarks/search_efficiency.py --searches surrogate/cycle tpe/none --first-seed 100

Each search is simulated (`simulator.py`): real learning curves from the table, the product's own samplers and rules,
workers in virtual time. The hypervolume is that of the test accuracies of the networks on the search's front of
validation accuracies, against log10 parameters, with the reference point of the product (`front.Scale`). Duplicates
are turned away before they cost anything, for all samplers alike. Every epoch of every trial counts, also of those that
still run. Tables A, B and C are `digits`, `fashion` and `held-out`. On A and B our sampler has a prior from the tables
of other images alone; on C, which nobody tuned on, that of the package.

A search is SAMPLER/RULE. `surrogate`, `surrogate-plain` and `surrogate-flipped` are ours with a prior, without one and
with all signs of its structure turned. The rule `cycle` is a first cycle (3 of 12, 3 of 9 and 2 of 8 epochs) after
which the sampler decides. `tpe/short` and others search by trainings of the first cycle alone and then train all of
their front in full: those epochs count.

The last line printed is a JSON object; a figure is null where the searches are too few or too short to tell it. Those
of table A have these names, those of others end in the table's letter, as in `hv_ours_30_B`:

- `hv_*_N`: median hypervolume after N trials without stopping; `hv_best`: of all networks of the space;
- `duplicates_ours`: known networks proposed by our sampler, in all its searches together;
- `epochs_ratio_same_hv`: epochs at which our sampler with the rule `front` is within 0.5% of the final hypervolume of
  our sampler without stopping, over the epochs at which that sampler is there without stopping;
- `epochs_ratio_95_vs_default`: epochs at which our sampler with the rule `front` has 95% of `hv_best`, over the same
  for Optuna's default sampler without stopping;
- `flipped_prior_ratio`: epochs to 95% of `hv_best` with the signs of the prior turned, over those without a prior.

And of each table

- `epochs_ratio_95_*`: epochs at which our sampler has 95% of `hv_best`, over the same for Optuna's default sampler,
  both without stopping; `epochs_ratio_95_*_cycle`: ours with the rule `cycle`;
- `epochs_ratio_95_*_with_retraining`: the same if each side also trains `RETRAINED` networks of its front anew, by
  twice the epochs of a trial, as a run does by default.
"""

import argparse
import functools
import importlib.util
import itertools
import json
import math
import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optuna
import pandas as pd
import plotly.colors
from fit_prior import SOURCES, fit, read
from results_file import RESULTS, make_parser, write_figures
from simulator import Table, best_hypervolume, hypervolumes, read_space, scale_of, simulate

from dacnn_search.search.sampler.prior import Prior
from dacnn_search.search.sampler.proposals import SamplerFactory
from dacnn_search.search.stopping import RULES as PRODUCT_RULES
from dacnn_search.search.stopping import Progress, StoppingRule, Verdict
from dacnn_search.storage.front import front_of

FOLDER = Path(__file__).parent / "dacnn_bench"
MARKS = (10, 30, 50, 100, 200)  # numbers of trials after which tables tell the hypervolume
TABLES = {"digits": "A", "fashion": "B", "held-out": "C"}
RELATED = {"digits": ("digits", "noisy"), "fashion": ("fashion", "tops", "shoes")}  # tables of the same images
FIRST_CYCLE = {"digits": 3, "fashion": 3, "held-out": 2}  # epochs
RETRAINED = 3  # networks of the front, for twice as many epochs as a trial
OURS, PLAIN, FLIPPED, DEFAULT = "surrogate", "surrogate-plain", "surrogate-flipped", "optuna_default"
PEER = "syne_tune"  # its sampler, and its rule; only where it is installed
AUTO = "optunahub_auto"  # what OptunaHub's AutoSampler takes for conditional spaces and less than 250 trials
EXPERT = "botorch"  # only where it is installed
EXPERT_TRIALS = 40  # at most: it takes about a second per proposal
SAMPLERS = ("random", "nsga2", DEFAULT, "tpe", AUTO, "gp", EXPERT, OURS, PLAIN, FLIPPED, PEER)
CYCLE, SHORT = "cycle", "short"
COLOURS = plotly.colors.qualitative.Dark24
DASHES = {
    "none": "solid",
    "front": "dash",
    "halving": "dot",
    "accuracy": "dashdot",
    PEER: "longdash",
    CYCLE: "longdashdot",
    SHORT: "dot",
}
QUARTILES = ("low", "median", "high")
SHARES = (95, 97, 98)  # of the best hypervolume, in percent
RULES = ("none", "accuracy", "halving", "front", CYCLE, SHORT, PEER)
OWN = (OURS, PLAIN, FLIPPED)  # the samplers that have cycles
SEARCHES = [
    f"{sampler}/{rule}" for sampler, rule in itertools.product(SAMPLERS, RULES) if rule != CYCLE or sampler in OWN
]
QUICK = [
    *(f"{OURS}/{rule}" for rule in ("none", "front", CYCLE)),
    *(f"{sampler}/none" for sampler in (PLAIN, FLIPPED, "tpe", DEFAULT)),
]


@dataclass(frozen=True)
class Search:
    """One search to simulate."""

    table: str
    sampler: str
    stopping: str
    seed: int
    trials: int
    workers: int


class AccuracyHalving(StoppingRule):
    """Ray Tune's ASHA if it is told accuracy alone: at 1/3 of the epochs and 1/9 of them (at least one) a
    trial goes on if its accuracy is among the best third of those that came so far."""

    def __init__(self, epochs: int) -> None:
        super().__init__(epochs)
        self._rungs: dict[int, list[float]] = {max(epochs // 9, 1): [], epochs // 3: []}

    def judge(self, progress: Progress) -> Verdict:
        rung = self._rungs.get(len(progress.accuracy))
        if rung is None:
            return Verdict(True)
        rung.append(progress.accuracy[-1])
        return Verdict(progress.accuracy[-1] >= np.quantile(rung, 2 / 3))


def trials_of(sampler: str, trials: int) -> int:
    """Return how many trials a search has of those asked for."""
    return min(trials, EXPERT_TRIALS) if sampler == EXPERT else trials


def run_search(search: Search) -> pd.DataFrame:
    """Simulate a search and return one row per trial that ended, in the order of virtual time."""
    path = FOLDER / f"{search.table}.parquet"
    space, first_cycle = read_space(path), FIRST_CYCLE[search.table]
    epochs = space.settings.recipe.epochs
    table = Table(path, first_cycle if search.stopping == CYCLE else 0)
    trained = Table(path.with_name(f"{path.stem}-{first_cycle}.parquet")) if search.stopping == SHORT else table
    begun = time.process_time()
    events = simulate(
        space,
        trained,
        sampler=_sampler(search.sampler),
        stopping=_rule(search.stopping, epochs),
        seed=search.seed,
        trials=search.trials,
        workers=search.workers,
        prior=_prior(search.sampler, search.table),
        first_cycle=first_cycle if search.stopping == CYCLE else 0,
    )
    spent = time.process_time() - begun
    rows = [
        {
            "table": search.table,
            "sampler": search.sampler,
            "stopping": search.stopping,
            "seed": search.seed,
            "trials": number,
            "epochs": event.spent,
            "seconds": event.seconds,
            "state": event.state,
            "duplicates": event.proposal.duplicates,
            "sampler_seconds": spent / len(events),
        }
        for number, event in enumerate(events, start=1)
    ]
    result = pd.DataFrame(rows).assign(hypervolume=hypervolumes(events, table, scale_of(space)))
    if search.stopping == SHORT:
        fronts = [front_of(event.record for event in events[:count]) for count in result["trials"]]
        needed = result["epochs"].to_numpy() + epochs * np.array([len(front) for front in fronts])
        result["epochs"] = np.minimum.accumulate(needed[::-1])[::-1]  # of the most trials that so many epochs allow
    return result


def _sampler(name: str) -> str | SamplerFactory:
    if name == PEER:
        from syne_tune_peer import Evolution

        return lambda seed, space, _: Evolution(seed, space)
    if name == EXPERT:
        from botorch_peer import LogEHVI

        return lambda seed, space, _: LogEHVI(seed, space)
    if name == AUTO:
        return lambda seed, *_: optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    if name == DEFAULT:
        return lambda seed, *_: optuna.samplers.TPESampler(seed=seed)
    return OURS if name in (PLAIN, FLIPPED) else name


def _prior(sampler: str, table: str) -> str | Prior:
    """Return the prior of our sampler in searches of a table, which has not seen its images."""
    if sampler == PLAIN:
        return "none"
    prior = _prior_without(RELATED[table]) if table in RELATED else Prior.load("auto")
    return Prior(-prior.structure, prior.weights) if sampler == FLIPPED else prior


@functools.cache
def _prior_without(tables: tuple[str, ...]) -> Prior:
    return Prior.from_dict(fit({name: read(name) for name in SOURCES if name not in tables}))


def _rule(name: str, epochs: int) -> StoppingRule:
    if name == PEER:
        from syne_tune_peer import MOAsha

        return MOAsha(epochs)
    if name == "accuracy":
        return AccuracyHalving(epochs)
    return PRODUCT_RULES["none" if name in (CYCLE, SHORT) else name](epochs)


def over(rows: pd.DataFrame, unit: str, places: np.ndarray) -> np.ndarray:
    """Return the median hypervolume over seeds at `places` of epochs or seconds; ended searches keep their last."""
    curves = []
    for _, search in rows.groupby("seed"):
        ended = np.searchsorted(search[unit].to_numpy(), places, side="right")
        curves.append(np.concatenate([[0.0], search["hypervolume"].to_numpy()])[ended])
    return np.median(curves, axis=0)


def epochs_to(rows: pd.DataFrame, target: float) -> int | None:
    """Return the epochs after which the median hypervolume has reached a target."""
    if not len(rows):
        return None
    reached = np.flatnonzero(over(rows, "epochs", np.arange(rows["epochs"].max() + 1)) >= target)
    return int(reached[0]) if len(reached) else None


def summarise(rows: pd.DataFrame, best: float, epochs: int, letter: str) -> dict[str, Any]:
    """Return the figures of the last line for one table, whose trials have so many epochs."""

    def of(sampler: str, stopping: str = "none") -> pd.DataFrame:
        return rows[(rows["sampler"] == sampler) & (rows["stopping"] == stopping)]

    def after(sampler: str, trials: int) -> float | None:
        volumes = of(sampler).query(f"trials == {trials}")["hypervolume"]
        return round(float(volumes.median()), 5) if len(volumes) else None

    def ratio(some: int | None, others: int | None, further: int = 0) -> float | None:
        return round((some + further) / (others + further), 3) if some and others else None

    target, suffix = 0.95 * best, "" if letter == "A" else f"_{letter}"
    retraining = RETRAINED * 2 * epochs
    default, ours, cycle = (epochs_to(of(*search), target) for search in ((DEFAULT,), (OURS,), (OURS, CYCLE)))
    full = of(OURS)
    final = float(full[full["trials"] == full["trials"].max()]["hypervolume"].median())
    figures = {
        "hv_ours_30": after(OURS, 30),
        "hv_ours_100": after(OURS, 100),
        "hv_tpe_multivariate_100": after("tpe", 100),
        "hv_best": round(best, 5),
        "duplicates_ours": int(rows[rows["sampler"].isin(OWN)]["duplicates"].sum()),
        "epochs_ratio_same_hv": ratio(epochs_to(of(OURS, "front"), 0.995 * final), full["epochs"].max()),
        "epochs_ratio_95_vs_default": ratio(epochs_to(of(OURS, "front"), target), default),
        "flipped_prior_ratio": ratio(epochs_to(of(FLIPPED), target), epochs_to(of(PLAIN), target)),
    }
    name = f"epochs_ratio_95_{letter}"
    return {key + suffix: value for key, value in figures.items()} | {
        name: ratio(ours, default),
        f"{name}_cycle": ratio(cycle, default),
        f"{name}_with_retraining": ratio(ours, default, retraining),
        f"{name}_cycle_with_retraining": ratio(cycle, default, retraining),
    }


def tabulate(rows: pd.DataFrame, best: float) -> pd.DataFrame:
    """Return a row per sampler and rule: epochs of a search, seconds per proposal, epochs to `SHARES` of the best
    hypervolume, and quartiles of the hypervolume, as shares of the best one, after each number of trials in `MARKS`."""
    table = []
    for (sampler, stopping), of in rows.groupby(["sampler", "stopping"], sort=False):
        row = {
            "sampler": sampler,
            "stopping": stopping,
            "seeds": of["seed"].nunique(),
            "epochs": of.groupby("seed")["epochs"].max().median(),
            "sampler_seconds": of["sampler_seconds"].median(),
            "duplicates": of.groupby("seed")["duplicates"].sum().median(),
            **{f"epochs_to_{share}": epochs_to(of, share / 100 * best) for share in SHARES},
        }
        for share in SHARES:
            reached = [epochs_to(search, share / 100 * best) or math.inf for _, search in of.groupby("seed")]
            for name, q in (("low", 0.25), ("high", 0.75)):
                quartile = pd.Series(reached).quantile(q, interpolation="nearest")
                row[f"epochs_to_{share}_{name}"] = quartile if math.isfinite(quartile) else None
        for mark in MARKS:
            volumes = of[of["trials"] == mark]["hypervolume"] / best
            if len(volumes):
                row |= {
                    f"{mark}_{name}": volumes.quantile(q) for name, q in zip(QUARTILES, (0.25, 0.5, 0.75), strict=True)
                }
        table.append(row)
    return pd.DataFrame(table)


def show(table: pd.DataFrame) -> None:
    """Print medians and quartiles."""
    marks = [mark for mark in MARKS if f"{mark}_median" in table]
    print(f"{'sampler':>15} {'stopping':>9} {'epochs':>7}" + "".join(f"{f'{n} trials':>23}" for n in marks))
    for row in table.to_dict("records"):
        cells = ("{:.4f} ({:.3f}-{:.3f})".format(*(row[f"{n}_{q}"] for q in ("median", "low", "high"))) for n in marks)
        start = f"{row['sampler']:>15} {row['stopping']:>9} {row['epochs']:7.0f}"
        print(start + "".join(f"{cell:>23}" for cell in cells))


def path_of(name: str, options: argparse.Namespace) -> Path:
    """Return the file of the figures of a table."""
    return options.output / f"search_efficiency-{name}{'-quick' if options.quick else ''}.json"


def write(
    name: str,
    rows: pd.DataFrame,
    table: pd.DataFrame,
    best: float,
    figures: dict[str, Any],
    options: argparse.Namespace,
) -> None:
    """Write figures and table as JSON, rows as CSV, the curves over trials, epochs and virtual seconds as a page."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    path = path_of(name, options)
    searches = table.round(5).astype(object).where(table.notna(), None).to_dict("records")
    write_figures(path, figures, first_seed=options.first_seed, workers=options.workers, searches=searches)
    rows.to_csv(path.with_suffix(".csv"), index=False)
    titles = ("after trials", "after epochs of all trials", "after seconds of virtual time")
    figure = make_subplots(1, 3, subplot_titles=titles, shared_yaxes=True)
    for number, ((sampler, stopping), of) in enumerate(rows.groupby(["sampler", "stopping"], sort=False)):
        trials = of.groupby("trials")["hypervolume"].quantile([0.25, 0.5, 0.75]).unstack() / best
        name = f"{sampler}, {stopping}"
        look = {
            "name": name,
            "legendgroup": name,
            "mode": "lines",
            "line": {"color": COLOURS[number % len(COLOURS)], "dash": DASHES[stopping]},
        }
        spread = {"type": "data", "array": trials[0.75] - trials[0.5], "arrayminus": trials[0.5] - trials[0.25]}
        figure.add_trace(go.Scatter(x=trials.index, y=trials[0.5], error_y=spread | {"thickness": 0.3}, **look), 1, 1)
        for column, unit in ((2, "epochs"), (3, "seconds")):
            if (stopping, unit) == (SHORT, "seconds"):
                continue  # those of the full trainings are not simulated
            places = np.linspace(0, of[unit].max(), 300)
            values = over(of, unit, places) / best
            figure.add_trace(go.Scatter(x=places, y=values, showlegend=False, **look), 1, column)
    figure.update_yaxes(title_text="share of the best hypervolume, median", range=[0.85, 1.0])
    figure.write_html(path.with_suffix(".html"), include_plotlyjs=True)


def main() -> None:
    parser = make_parser(__doc__, "few seeds and the combinations that the last line needs")
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES), help="(default: all)")
    parser.add_argument("--seeds", type=int, help="searches of each combination (default 20, quick 5)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--workers", type=int, default=4, help="of each simulated search")
    parser.add_argument(
        "--searches", nargs="+", choices=SEARCHES, metavar="SAMPLER/RULE", help="such as tpe/none (default all)"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--again", action="store_true", help="make all figures anew from the rows in --output")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for all figures (benchmarks/results)")
    options = parser.parse_args()
    missing = {name for name in (PEER, EXPERT) if importlib.util.find_spec(name) is None}
    combinations = options.searches or [
        name for name in (QUICK if options.quick else SEARCHES) if missing.isdisjoint(name.split("/"))
    ]
    if missing and not options.searches:
        print(f"not installed and left out: {', '.join(sorted(missing))}")
    seeds = range(options.first_seed, options.first_seed + (options.seeds or (5 if options.quick else 20)))
    all_figures: dict[str, Any] = {}
    for name in options.tables:
        searches = [
            Search(name, sampler, stopping, seed, trials_of(sampler, options.trials), options.workers)
            for seed in seeds
            for sampler, stopping in (combination.split("/") for combination in combinations)
        ]
        if options.again:
            rows = pd.read_csv(path_of(name, options).with_suffix(".csv"))
        else:
            with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
                rows = pd.concat(pool.imap(run_search, searches), ignore_index=True)
        space = read_space(FOLDER / f"{name}.parquet")
        best = best_hypervolume(Table(FOLDER / f"{name}.parquet"), scale_of(space))
        table, figures = tabulate(rows, best), summarise(rows, best, space.settings.recipe.epochs, TABLES[name])
        print(f"table {TABLES[name]}, {name}")
        show(table)
        write(name, rows, table, best, figures, options)
        all_figures |= figures
    print(json.dumps(all_figures))


if __name__ == "__main__":
    main()
