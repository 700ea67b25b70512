"""What is known of the errors of networks before any is trained, from trainings of other spaces and data."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np

from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import Cost
from dacnn_search.search.sampler.gaussian_process import Weights
from dacnn_search.space.settings import regulator_rank

FILE = "prior.json"
# The weights of the trend, see `Prior`; the last two are of short trainings alone.
WEIGHTS = ("level", "slope", "structure", "short_level", "short_slope")
STRUCTURE = WEIGHTS.index("structure")
DOUBT = 2.0  # the deviation of the weight of structure in the second belief, in weights of the first


@dataclass(frozen=True)
class Prior:
    """The log10 of a network's error, as a share of that of guessing, is about

        level + slope * size + structure * s,

    after a short training `short_level + short_slope * size` more. `size` is the log10 of its size less the middle of
    the space's; s is the weighted sum of the features that `structure_of` gives, less what is usual at that size in the
    space. The weights of features are known, those of the trend uncertain: a search learns them with the first trials.
    """

    structure: np.ndarray  # weights of features, (f,)
    weights: Weights

    @property
    def beliefs(self) -> tuple[Weights, ...]:
        """What may be true of the weights, all as likely: that they are as known, or that structure has a weight of
        any sign, which may be larger. So a search on data where structure has another effect finds out soon."""
        if not self.structure.any():
            return (self.weights,)
        mean, covariance = self.weights.mean.copy(), self.weights.covariance.copy()
        mean[STRUCTURE], covariance[STRUCTURE, STRUCTURE] = 0.0, (DOUBT * mean[STRUCTURE]) ** 2
        return (self.weights, Weights(mean, covariance))

    @classmethod
    def load(cls, name: str) -> "Prior":
        """Return the prior of that name: `auto`, which `benchmarks/fit_prior.py` fitted, or `none`, which knows as much
        of errors in general, but nothing of structure."""
        prior = cls.from_dict(json.loads(resources.files(__package__).joinpath(FILE).read_text("utf-8")))
        return prior if name == "auto" else cls(np.zeros(len(FEATURES)), prior.weights)

    @classmethod
    def from_dict(cls, values: dict) -> "Prior":
        """Return the prior of a file like `prior.json`."""
        structure = np.array([values["structure"][name] for name in FEATURES])
        means, deviations = np.array([values["weights"][name] for name in WEIGHTS]).T
        return cls(structure, Weights(means, np.diag(deviations**2)))


FEATURES = (
    "sections",
    "first width",  # widths as log2
    "last width",
    "squared first width",
    "depth",  # depths as square roots
    "depth without shortcuts",
    "first depth",
    "last depth",
    "multiply-accumulates",  # log10
    "network sharing",
    "section sharing",
    "second sharing",
    "anchors",  # log2
    "learned mixing",
    "block shortcuts",
    "history",  # log2 of its length and 1, 0 without
    "regulators",  # mean over sections of 0 for none, 1 for block, 2 for layer
)


def structure_of(architecture: Architecture, cost: Cost) -> np.ndarray:
    """Return the features of a network that tell, at equal size, of its error: (f,), in the order of `FEATURES`."""
    sections = architecture.sections
    first, last = math.log2(sections[0].width), math.log2(sections[-1].width)
    depth, shortcuts = math.sqrt(architecture.depth), architecture.decided_shortcuts
    return np.array(
        [
            len(sections),
            first,
            last,
            first**2,
            depth,
            depth * (shortcuts == "none"),
            math.sqrt(sections[0].depth),
            math.sqrt(sections[-1].depth),
            math.log10(cost.macs),
            architecture.sharing == "network",
            architecture.sharing == "section",
            architecture.sharing == "second",
            math.log2(architecture.anchors),
            architecture.mixing == "learned",
            shortcuts == "block",
            math.log2(1 + architecture.history) if shortcuts == "history" else 0.0,
            float(np.mean([regulator_rank(section.regulators) for section in sections])),
        ],
        dtype=float,
    )


def trend_of(sizes: np.ndarray, structures: np.ndarray, short: Sequence[bool] | np.ndarray) -> np.ndarray:
    """Return the trend (n, p) that the weights apply to, of centred sizes (n,) and weighted sums of features (n,)."""
    ones, short = np.ones(len(sizes)), np.asarray(short, dtype=float)
    return np.stack([ones, sizes, structures, short, short * sizes], axis=1)
