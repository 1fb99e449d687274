"""The oracle itself: against numbers worked out by hand, and its derivatives against finite differences."""

import numpy as np
import pytest

from tests import reference


def test_algorithm_1_by_hand():
    # Mean of 1, 3, 5 is 3; squares of deviations 4, 0, 4; variance 8/3. With eps = 1/3 the standard deviation is
    # sqrt(3).
    n = reference.algorithm_1(np.array([[1.0], [3.0], [5.0]]), gamma=2.0, beta=1.0, eps=1 / 3, axes=(0,))
    assert n.mu.item() == 3
    assert n.sigma2.item() == pytest.approx(8 / 3)
    assert n.m.item() == 3
    np.testing.assert_allclose(n.y[:, 0], [1 - 4 / 3**0.5, 1, 1 + 4 / 3**0.5])


def test_algorithm_1_with_a_mask_by_hand():
    # The 100 is not counted: mean of 2 and 4 is 3, variance 1. It is normalized all the same.
    x = np.array([[2.0], [4.0], [100.0]])
    n = reference.algorithm_1(x, 1.0, 0.0, eps=0.0, axes=(0,), mask=np.array([[True], [True], [False]]))
    np.testing.assert_allclose(n.y[:, 0], [-1, 1, 97])
    assert n.m.item() == 2


def test_algorithm_2_by_hand():
    assert reference.algorithm_2_variance(2.0, 5) == 2.5
    assert reference.algorithm_2_variance(0.0, 1) == 0
    assert reference.inference(3.0, gamma=2.0, beta=1.0, mean=1.0, variance=3.0, eps=1.0) == 3


def test_renorm_by_hand():
    r, d = reference.renorm_correction(mu=5.0, sigma2=4.0, renorm_mean=1.0, renorm_stddev=8.0, eps=0.0)
    assert (r, d) == (0.25, 0.5)
    assert reference.renorm_correction(5.0, 4.0, 1.0, 8.0, 0.0, rmin=0.5, dmax=0.2) == (0.5, 0.2)


@pytest.mark.parametrize("masked", [False, True])
def test_backward_is_the_derivative(masked):
    random = np.random.default_rng(0)
    x, dy = random.normal(size=(2, 4, 3, 2))
    gamma = random.normal(size=(1, 1, 2))
    mask = random.random((4, 3, 1)) < 0.6 if masked else None
    arguments = {"x": x, "gamma": gamma, "beta": np.zeros((1, 1, 2))}

    def loss(**changed):
        a = {**arguments, **changed}
        return (reference.algorithm_1(a["x"], a["gamma"], a["beta"], 1e-3, (0, 1), mask).y * dy).sum()

    found = reference.backward(x, gamma, dy, 1e-3, (0, 1), mask)
    step = 1e-6
    for name, gradient in zip(arguments, found, strict=True):
        value = arguments[name]
        for index in np.ndindex(*value.shape):
            up, down = value.copy(), value.copy()
            up[index] += step
            down[index] -= step
            numeric = (loss(**{name: up}) - loss(**{name: down})) / (2 * step)
            assert gradient[index] == pytest.approx(numeric, abs=1e-6), (name, index)
