"""A Gaussian process of noisy values from short and full trainings, with a linear trend of uncertain weights.

The value of a network with features x and trend h is, after a full training and after a short one,

    full(x)  = h . w + f(x) + noise
    short(x) = h' . w + f(x) + g(x) + noise'

f and g are independent Gaussian processes with one Matern 5/2 kernel, a length per feature, and variances of their own;
h' has, beside the entries of h, some that are 0 in h, so that short trainings have a trend of their own. The weights w
are Gaussian (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, section 2.7), and a short
training tells of a full one as in Kennedy and O'Hagan, "Predicting the output from a complex computer code when fast
approximations are available" (2000). scikit-learn has neither; libraries that have both bring a framework with them.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

STEPS = 20  # of the optimisation of the kernel
FEWEST_TO_FIT = 3  # values; for fewer the kernel is the one expected before any
BOUND = 5.0  # of the logarithms of its parameters, in standard deviations: a first step can be large
JITTER = 1e-9
# Logarithms of the kernel's parameters that are expected, for values of log10 errors, and their standard deviations.
VARIANCE, SHORT_SHARE = (math.log(0.01), 1.2), (math.log(0.3), 1.0)
NOISE, SHORT_NOISE = (math.log(0.001), 1.0), (math.log(0.001), 1.0)
LENGTH_SPREAD = 1.0  # of lengths, which are expected near the distance between points of d features of unit spread


@dataclass(frozen=True)
class Inputs:
    """Trainings of n networks."""

    features: np.ndarray  # (n, d), of about unit spread
    trend: np.ndarray  # (n, p)
    short: np.ndarray  # (n,) bool

    def __len__(self) -> int:
        return len(self.short)

    def __getitem__(self, rows: slice | np.ndarray) -> "Inputs":
        return Inputs(self.features[rows], self.trend[rows], self.short[rows])


@dataclass(frozen=True)
class Weights:
    """What is known of the weights of the trend before any value: means (p,) and covariances (p, p)."""

    mean: np.ndarray
    covariance: np.ndarray


@dataclass(frozen=True)
class Kernel:
    """The parameters of the process, as `logarithms`: the variance of f, the share of it that g has, the variances of
    noise and noise', and the lengths (d)."""

    logarithms: np.ndarray

    @classmethod
    def expected(cls, dimensions: int) -> "Kernel":
        """Return the kernel that is expected before any value."""
        return cls(_expected(dimensions)[0])

    @property
    def variance(self) -> float:
        return math.exp(self.logarithms[0])

    @property
    def short_share(self) -> float:
        return math.exp(self.logarithms[1])

    @property
    def short_noise(self) -> float:
        return math.exp(self.logarithms[3])

    def noise(self, short: np.ndarray) -> np.ndarray:
        """Return the variances of the noise, (n,)."""
        return np.exp(np.where(short, self.logarithms[3], self.logarithms[2]))

    def between(self, some: Inputs, others: Inputs) -> np.ndarray:
        """Return the covariances of the processes at n and m inputs, without trend and noise: (n, m)."""
        lengths = np.exp(self.logarithms[4:])
        correlations = _matern(cdist(some.features / lengths, others.features / lengths, "sqeuclidean"))
        return self.variance * correlations * (1 + self.short_share * np.outer(some.short, others.short))


def fit_kernel(inputs: Inputs, residuals: np.ndarray, weights: Weights, start: Kernel | None = None) -> Kernel:
    """Return the kernel with the largest posterior.

    Args:
        inputs: The trainings of n networks.
        residuals: Their values less the expected trend, (n,).
        weights: Of the trend; their covariances count.
        start: The kernel that the optimisation starts from.
    """
    start = start or Kernel.expected(inputs.features.shape[1])
    if len(inputs) < FEWEST_TO_FIT:
        return start
    trend = inputs.trend @ weights.covariance @ inputs.trend.T
    arguments = (inputs, residuals, trend)
    means, spreads = _expected(inputs.features.shape[1])
    bounds = np.stack([means - BOUND * spreads, means + BOUND * spreads], axis=1)
    found = minimize(
        _objective, start.logarithms, arguments, "L-BFGS-B", jac=True, bounds=bounds, options={"maxiter": STEPS}
    )
    return Kernel(found.x)


class GaussianProcess:
    """A process given values of its first inputs.

    The other inputs are of trainings that run: they count with the values expected of them, so that little is left to
    be learnt near them.

    Args:
        kernel: A kernel of `fit_kernel`.
        weights: Of the trend.
        inputs: n trainings; there may be none.
        values: Of the first of them, (at most n,).

    Attributes:
        evidence: The logarithm of the probability density of the values, up to a constant of their number.
    """

    def __init__(self, kernel: Kernel, weights: Weights, inputs: Inputs, values: np.ndarray) -> None:
        self._kernel = kernel
        self._weights = weights
        observed = len(values)
        self._condition(inputs[:observed], values)
        misfits = values - inputs[:observed].trend @ weights.mean
        self.evidence = float(-misfits @ self._coefficients / 2 - np.log(np.diag(self._factor[0])).sum())
        if len(inputs) > observed:
            expected = self.predict(inputs[observed:])[0]
            self._condition(inputs, np.concatenate([values, expected]))

    def predict(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of values without noise, each (n,)."""
        mean, projected = self._project(inputs)
        return mean, np.sqrt(self._variance(inputs, projected))

    def foretell(self, full: Inputs, short: Inputs) -> np.ndarray:
        """Return by how much the mean of full values will move, in standard deviations of that move, if short trainings
        of the same n networks are done: (n,)."""
        ahead, behind = self._project(full)[1], self._project(short)[1]
        trend = np.einsum("ij,jk,ik->i", full.trend, self._weights.covariance, short.trend)
        covariance = self._kernel.variance + trend - (ahead * behind).sum(axis=0)
        return covariance / np.sqrt(self._variance(short, behind) + self._kernel.short_noise)

    def _condition(self, inputs: Inputs, values: np.ndarray) -> None:
        self._inputs = inputs
        covariances = self._between(inputs, inputs) + np.diag(self._kernel.noise(inputs.short) + JITTER)
        self._factor = cho_factor(covariances, lower=True)
        self._coefficients = cho_solve(self._factor, values - inputs.trend @ self._weights.mean)

    def _between(self, some: Inputs, others: Inputs) -> np.ndarray:
        return self._kernel.between(some, others) + some.trend @ self._weights.covariance @ others.trend.T

    def _project(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Return the means (n,), and the covariances with the values known, whitened: (known, n)."""
        known = self._between(inputs, self._inputs)
        mean = inputs.trend @ self._weights.mean + known @ self._coefficients
        return mean, solve_triangular(self._factor[0], known.T, lower=True)

    def _variance(self, inputs: Inputs, projected: np.ndarray) -> np.ndarray:
        trend = np.einsum("ij,jk,ik->i", inputs.trend, self._weights.covariance, inputs.trend)
        before = self._kernel.variance * (1 + self._kernel.short_share * inputs.short) + trend
        return np.maximum(before - (projected**2).sum(axis=0), JITTER)


def _expected(dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the expected logarithms of a kernel's parameters and their standard deviations, each (4 + d,)."""
    length = math.log(dimensions) / 2, LENGTH_SPREAD
    both = np.array([VARIANCE, SHORT_SHARE, NOISE, SHORT_NOISE, *[length] * dimensions])
    return both[:, 0], both[:, 1]


def _objective(
    logarithms: np.ndarray, inputs: Inputs, residuals: np.ndarray, trend: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the negative logarithm of the posterior of a kernel, up to a constant, and its gradient."""
    kernel = Kernel(logarithms)
    scaled = inputs.features / np.exp(logarithms[4:])
    distances = cdist(scaled, scaled, "sqeuclidean")
    both = np.outer(inputs.short, inputs.short)
    correlations = _matern(distances)
    noise = kernel.noise(inputs.short)
    scale = kernel.variance * (1 + kernel.short_share * both)
    factor = cho_factor(scale * correlations + trend + np.diag(noise + JITTER), lower=True)
    solved = cho_solve(factor, residuals)
    value = residuals @ solved / 2 + np.log(np.diag(factor[0])).sum()
    outer = (cho_solve(factor, np.eye(len(inputs))) - np.outer(solved, solved)) / 2  # the derivative by the covariances
    noises = np.diag(outer) * noise
    root = np.sqrt(5 * distances)
    slopes = outer * scale * (5 / 3) * (1 + root) * np.exp(-root)
    lengths = ((slopes * (column[:, None] - column) ** 2).sum() for column in scaled.T)
    own = (outer * kernel.variance * kernel.short_share * both * correlations).sum()
    gradient = [(outer * scale * correlations).sum(), own, noises[~inputs.short].sum(), noises[inputs.short].sum()]
    means, spreads = _expected(scaled.shape[1])
    offsets = (logarithms - means) / spreads
    return value + offsets @ offsets / 2, np.array([*gradient, *lengths]) + offsets / spreads


def _matern(squared_distances: np.ndarray) -> np.ndarray:
    root = np.sqrt(5 * squared_distances)
    return (1 + root + root**2 / 3) * np.exp(-root)
