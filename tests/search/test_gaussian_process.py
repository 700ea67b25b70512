"""The Gaussian process of the sampler: its trend, its two fidelities, its kernel."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from dacnn_search.search.sampler import gaussian_process
from dacnn_search.search.sampler.gaussian_process import GaussianProcess, Inputs, Kernel, Weights, fit_kernel

WEIGHTS = Weights(np.array([-0.5, 0.2]), np.diag([0.1, 0.1]))  # of a level, and of what short trainings add


def inputs(features, short=False):
    """Return trainings of points of one feature, with a trend of a level and of short trainings."""
    features = np.atleast_1d(np.asarray(features, dtype=float))[:, None]
    short = np.broadcast_to(short, len(features))
    return Inputs(features, np.stack([np.ones(len(features)), short], axis=1).astype(float), short.astype(bool))


def joined(*parts):
    return Inputs(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("features", "trend", "short")))


def test_before_any_value_the_trend_is_what_is_expected():
    process = GaussianProcess(Kernel.expected(1), WEIGHTS, inputs([]), np.empty(0))
    means, deviations = process.predict(inputs([0.0, 9.0]))
    assert means == pytest.approx([-0.5, -0.5])
    assert deviations == pytest.approx([np.sqrt(0.1 + 0.01)] * 2)


def test_values_move_the_trend_everywhere_and_the_process_near_them():
    near, far = [-1.0, -0.5, 0.0, 0.5, 1.0], inputs([50.0])
    process = GaussianProcess(Kernel.expected(1), WEIGHTS, inputs(near), np.full(5, -1.0))
    assert process.predict(inputs([0.2]))[0] == pytest.approx([-1.0], abs=0.02)
    assert process.predict(far)[0] == pytest.approx([-0.96], abs=0.03)
    assert process.predict(inputs([0.2]))[1] < 0.3 * process.predict(far)[1]


def test_short_trainings_tell_which_full_ones_are_good_but_not_their_level():
    points = np.linspace(-2, 2, 9)
    bumps = 0.2 * np.sin(2 * points)
    process = GaussianProcess(Kernel.expected(1), WEIGHTS, inputs(points, True), bumps + 3.0)
    means, deviations = process.predict(inputs(points))
    assert np.corrcoef(means, bumps)[0, 1] > 0.95
    assert abs(means.mean() - 3.0) > 1.0
    assert deviations.min() > 0.2
    one = joined(inputs(points, True), inputs([0.0]))
    known = GaussianProcess(Kernel.expected(1), WEIGHTS, one, np.append(bumps + 3.0, -0.6))
    assert known.predict(inputs(points))[0] == pytest.approx(bumps - 0.6, abs=0.2)


def test_the_foretold_move_is_what_a_short_training_takes_from_the_variance():
    points, new = inputs([-1.0, 0.0, 1.0]), 0.4
    process = GaussianProcess(Kernel.expected(1), WEIGHTS, points, np.array([-0.4, -0.6, -0.5]))
    before = process.predict(inputs([new]))[1]
    moves = process.foretell(inputs([new]), inputs([new], True))
    after = GaussianProcess(
        Kernel.expected(1), WEIGHTS, joined(points, inputs([new], True)), np.array([-0.4, -0.6, -0.5, -0.1])
    )
    assert after.predict(inputs([new]))[1] ** 2 == pytest.approx(before**2 - moves**2, rel=1e-4)


def test_a_training_that_runs_counts_with_the_value_expected_of_it():
    """Nothing is to be gained beside it as long as it runs."""
    points, far = inputs(np.linspace(0, 1, 6)), inputs([3.0])
    values = np.sin(5 * points.features[:, 0])
    kernel = fit_kernel(points, values - points.trend @ WEIGHTS.mean, WEIGHTS)
    before = GaussianProcess(kernel, WEIGHTS, points, values)
    after = GaussianProcess(kernel, WEIGHTS, joined(points, far), values)
    assert after.predict(far)[0] == pytest.approx(before.predict(far)[0], abs=0.05)
    assert after.predict(far)[1] < 0.5 * before.predict(far)[1]
    assert after.predict(inputs([0.5]))[1] == pytest.approx(before.predict(inputs([0.5]))[1], rel=0.1)


def test_the_evidence_is_the_density_of_the_values_known():
    points, values = inputs([-1.0, 0.0, 0.3], [True, False, False]), np.array([-0.1, -0.6, -0.4])
    kernel = Kernel.expected(1)
    process = GaussianProcess(kernel, WEIGHTS, joined(points, inputs([2.0])), values)
    covariance = kernel.between(points, points) + points.trend @ WEIGHTS.covariance @ points.trend.T
    density = multivariate_normal(points.trend @ WEIGHTS.mean, covariance + np.diag(kernel.noise(points.short)))
    assert process.evidence == pytest.approx(density.logpdf(values) + 3 * np.log(2 * np.pi) / 2, rel=1e-4)


def test_the_gradient_of_the_posterior_is_that_of_differences():
    generator = np.random.default_rng(0)
    short = generator.random(20) < 0.4
    data = Inputs(generator.normal(size=(20, 3)), np.stack([np.ones(20), short], axis=1), short)
    residuals, trend = generator.normal(size=20) / 10, data.trend @ WEIGHTS.covariance @ data.trend.T
    point = Kernel.expected(3).logarithms + generator.normal(size=7) / 3

    def value(logarithms):
        return gaussian_process._objective(logarithms, data, residuals, trend)[0]

    steps = 1e-5 * np.eye(7)
    differences = [(value(point + step) - value(point - step)) / 2e-5 for step in steps]
    assert gaussian_process._objective(point, data, residuals, trend)[1] == pytest.approx(differences, abs=1e-4)


def test_a_fitted_kernel_sees_which_feature_matters_and_how_noisy_values_are():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(60, 2))
    trend, short = np.ones((60, 1)), np.zeros(60, dtype=bool)
    weights = Weights(np.zeros(1), np.eye(1))
    values = np.sin(2 * features[:, 0])
    quiet = fit_kernel(Inputs(features, trend, short), values, weights)
    noisy = fit_kernel(Inputs(features, trend, short), values + 0.3 * generator.normal(size=60), weights)
    assert quiet.logarithms[4] < quiet.logarithms[5] - 1
    assert noisy.noise(short)[0] > 10 * quiet.noise(short)[0]


def test_values_far_from_all_expectations_give_a_kernel_too():
    short = np.array([False, True] * 4)
    data = Inputs(np.arange(8.0)[:, None] * 1e-3, np.stack([np.ones(8), short], axis=1), short)
    kernel = fit_kernel(data, np.array([0.0, 50.0] * 4), WEIGHTS)
    assert np.isfinite(kernel.logarithms).all()
    assert np.isfinite(GaussianProcess(kernel, WEIGHTS, data, np.array([0.0, 50.0] * 4)).predict(data)[0]).all()
