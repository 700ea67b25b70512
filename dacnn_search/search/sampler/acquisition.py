"""What a training promises: the hypervolume that it is expected to add to a front, in all or per epoch."""

import math

import numpy as np
from scipy.special import ndtr

LOG_10 = math.log(10)
NODES, SHARES = np.polynomial.hermite_e.hermegauss(7)  # of an expectation over a standard Gaussian
SHARES = SHARES / SHARES.sum()
BISECTIONS = 30


def expected_improvement(
    front: np.ndarray, reference: np.ndarray, means: np.ndarray, deviations: np.ndarray, costs: np.ndarray
) -> np.ndarray:
    """Return the expected improvement of the hypervolume by one more point, for each of m candidates: (m,).

    Let the front be (b_1, h_1), ..., (b_n, h_n), b falling and h rising; b_0 and h_(n+1) those of the reference point
    and h_0 = -infinity. Of the points with h_i <= y < h_(i+1), those with an error of b_i or more are dominated
    already, so that a candidate of error E and cost y adds the area

        sum over i = 0, ..., n of  (b_i - E)+ * ((h_(i+1) - y)+ - (h_i - y)+)

    If the natural logarithm of E has mean mu and deviation s, the expectation of (b - E)+ is the price of a put option
    by Black and Scholes,

        b Phi(z) - exp(mu + s^2 / 2) Phi(z - s),  z = (log b - mu) / s

    The strips are those of Emmerich, Yang, Deutz, Wang and Fonseca, "A multicriteria generalization of Bayesian global
    optimization" (2016).

    Args:
        front: Nondominated errors and costs, (n, 2).
        reference: The reference point of the hypervolume, (2,).
        means: Means of the log10 of the errors, which is Gaussian, (m,).
        deviations: Its standard deviations, (m,).
        costs: Costs, which are certain, (m,).
    """
    front = front[np.argsort(front[:, 1])]
    bounds = np.concatenate([reference[:1], front[:, 0]])
    heights = np.concatenate([front[:, 1], reference[1:]])
    strips = np.diff(np.maximum(heights - costs[:, None], 0.0), axis=1, prepend=0.0)
    mean = LOG_10 * means[:, None]
    deviation = LOG_10 * np.maximum(deviations[:, None], 1e-12)  # so that a certain error gives (b - E)+
    z = (np.log(np.maximum(bounds, 1e-300)) - mean) / deviation
    return ((bounds * ndtr(z) - np.exp(mean + deviation**2 / 2) * ndtr(z - deviation)) * strips).sum(axis=1)


def rate_of_gain(
    front: np.ndarray,
    reference: np.ndarray,
    means: np.ndarray,
    deviations: np.ndarray,
    moves: np.ndarray,
    costs: np.ndarray,
    first_share: float,
) -> np.ndarray:
    """Return the expected improvement, per training, of candidates that are trained for a first cycle and, if it is
    worth it then, for the rest: (m,).

    If training brings the rate r elsewhere, a candidate of that rate is worth just as much. With a first cycle, a share
    s of a training, after which the improvement expected is I, its rate solves

        E[(I - r (1 - s))+] = r s

    This is the reservation value of Weitzman, "Optimal search for the best alternative" (1979), of a box whose opening
    and whose contents both have a price, in units of what else it buys. Without a first cycle it is E[I].

    Args:
        front, reference, means, deviations, costs: As in `expected_improvement`.
        moves: Standard deviations of the move of each mean by a first cycle, (m,).
        first_share: s, in [0, 1).
    """
    if not first_share:
        return expected_improvement(front, reference, means, deviations, costs)
    left = np.sqrt(np.maximum(deviations**2 - moves**2, 0.0))
    after = [expected_improvement(front, reference, means + node * moves, left, costs) for node in NODES]
    gains = np.stack(after, axis=1)
    low, high = np.zeros(len(means)), gains.max(axis=1) / first_share
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        worth = np.maximum(gains - middle[:, None] * (1 - first_share), 0.0) @ SHARES > middle * first_share
        low, high = np.where(worth, middle, low), np.where(worth, high, middle)
    return low
