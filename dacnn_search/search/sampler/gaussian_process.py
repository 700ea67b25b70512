"""A Gaussian process for noisy values, by scikit-learn, with priors on its kernel and a short optimisation of it."""

import math
import warnings
from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Kernel, Matern, WhiteKernel

STEPS = 20  # of the optimisation of the kernel's parameters
BOUNDS = (1e-6, 1e6)
# Mean and standard deviation of the logarithms of the kernel's parameters, for values of unit variance.
AMPLITUDE, NOISE, LENGTH_SPREAD = (0.0, 1.0), (math.log(0.05), 1.5), 1.0


def fit_kernel(features: np.ndarray, values: np.ndarray, start: Kernel | None = None) -> Kernel:
    """Return the kernel of form amplitude * Matern 5/2 (a length per feature) + noise with the largest posterior.

    The lengths are expected near the square root of d, the distance between points of d features of unit spread.

    Args:
        features: (n, d), of about unit spread.
        values: (n,), of zero mean and unit variance.
        start: The kernel that the optimisation starts from.
    """
    dimensions = features.shape[1]
    length = math.sqrt(dimensions)
    if start is None:
        lengths = Matern(np.full(dimensions, length), BOUNDS, nu=2.5)
        start = ConstantKernel(1.0, BOUNDS) * lengths + WhiteKernel(math.exp(NOISE[0]), BOUNDS)
    means = np.array([AMPLITUDE[0], *[math.log(length)] * dimensions, NOISE[0]])
    spreads = np.array([AMPLITUDE[1], *[LENGTH_SPREAD] * dimensions, NOISE[1]])

    def optimise(negative_likelihood: Callable, theta: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, float]:
        def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = negative_likelihood(theta)
            offsets = (theta - means) / spreads
            return value + offsets @ offsets / 2, gradient + offsets / spreads

        found = minimize(objective, theta, method="L-BFGS-B", jac=True, bounds=bounds, options={"maxiter": STEPS})
        return found.x, found.fun

    with warnings.catch_warnings():  # values without noise lead to the least noise
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianProcessRegressor(start, optimizer=optimise).fit(features, values).kernel_


class GaussianProcess:
    """A Gaussian process given noisy observations.

    Args:
        kernel: A kernel of `fit_kernel`.
        features: Observed points, then pending ones: (n, d). Pending points count with the value expected there, so
            that little is left to be learnt near them.
        values: Observations at the first points, of any mean and variance: (at most n,).
    """

    def __init__(self, kernel: Kernel, features: np.ndarray, values: np.ndarray) -> None:
        self._centre, self._spread = values.mean(), max(values.std(), 1e-9)
        scaled = (values - self._centre) / self._spread
        self._process = self._condition(kernel, features[: len(values)], scaled)
        if len(features) > len(values):
            expected = self._process.predict(features[len(values) :])
            self._process = self._condition(kernel, features, np.concatenate([scaled, expected]))

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of the values without noise, each (n,)."""
        mean, deviation = self._process.predict(features, return_std=True)
        return self._centre + self._spread * mean, self._spread * deviation

    @staticmethod
    def _condition(kernel: Kernel, features: np.ndarray, values: np.ndarray) -> GaussianProcessRegressor:
        """Give the kernel's noise to the observations alone; scikit-learn would add it to predictions as well."""
        process = GaussianProcessRegressor(kernel.k1, alpha=kernel.k2.noise_level + 1e-8, optimizer=None)
        return process.fit(features, values)
