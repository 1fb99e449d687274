"""The oracle: batch normalization in NumPy float64, in the letters of Ioffe & Szegedy 2015.

x, y: the values over a mini-batch B and their normalized counterparts; mu, sigma2: mean and (biased) variance of B;
gamma, beta: scale and shift; eps: the constant; m: how many values were averaged; l: the loss. Written for clarity,
from the definitions, with no care for large means beyond what float64 gives. `axes` are those averaged over; vectors
keep them with size 1.
"""

from typing import NamedTuple

import numpy as np


class Normalized(NamedTuple):
    """What Alg. 1 computes on its way."""

    y: np.ndarray
    x_hat: np.ndarray
    mu: np.ndarray
    sigma2: np.ndarray
    m: np.ndarray


def algorithm_1(x, gamma, beta, eps, axes, mask=None) -> Normalized:
    """The batch normalizing transform. `mask` broadcasts to `x`: mean and variance are of the values under True."""
    x = np.asarray(x, "float64")
    w = np.broadcast_to(np.ones_like(x, bool) if mask is None else mask, x.shape)
    m = w.sum(axes, keepdims=True)
    counted = np.where(w, x, 0)
    mu = np.divide(counted.sum(axes, keepdims=True), m, where=m > 0, out=np.zeros(m.shape))
    squares = np.where(w, x - mu, 0) ** 2
    sigma2 = np.divide(squares.sum(axes, keepdims=True), m, where=m > 0, out=np.zeros(m.shape))
    x_hat = (x - mu) / np.sqrt(sigma2 + eps)
    return Normalized(gamma * x_hat + beta, x_hat, mu, sigma2, m)


def backward(x, gamma, dy, eps, axes, mask=None):
    """Sec. 3, the chain rule line by line: dl/dx, dl/dgamma, dl/dbeta from dy = dl/dy."""
    n = algorithm_1(x, gamma, 0.0, eps, axes, mask)
    w = np.broadcast_to(np.ones_like(n.y, bool) if mask is None else mask, n.y.shape)
    m = np.maximum(n.m, 1)  # without a counted value no x depends on mu and sigma2, and w is 0 everywhere
    d_x_hat = dy * gamma
    centered = x - n.mu
    d_sigma2 = (d_x_hat * centered * -0.5 * (n.sigma2 + eps) ** -1.5).sum(axes, keepdims=True)
    d_mu = (d_x_hat * -1 / np.sqrt(n.sigma2 + eps)).sum(axes, keepdims=True)
    d_mu = d_mu + d_sigma2 * (-2 * np.where(w, centered, 0)).sum(axes, keepdims=True) / m
    dx = d_x_hat / np.sqrt(n.sigma2 + eps) + np.where(w, d_sigma2 * 2 * centered / m + d_mu / m, 0)
    return dx, (dy * n.x_hat).sum(axes, keepdims=True), dy.sum(axes, keepdims=True)


def algorithm_2_variance(sigma2, m):
    """Line 10: the unbiased variance, m / (m - 1) sigma2; of a single value it is 0."""
    return sigma2 * m / np.maximum(m - 1, 1)


def inference(x, gamma, beta, mean, variance, eps):
    """Alg. 2, line 11: the affine map of the inference network."""
    a = gamma / np.sqrt(variance + eps)
    return a * np.asarray(x, "float64") + (beta - a * mean)


def renorm_correction(mu, sigma2, renorm_mean, renorm_stddev, eps, rmin=0.0, rmax=np.inf, dmax=np.inf):
    """Ioffe 2017, Alg. 1: the corrections r and d."""
    stddev = np.maximum(renorm_stddev, np.sqrt(eps))
    r = np.clip(np.sqrt(sigma2 + eps) / stddev, rmin, rmax)
    return r, np.clip((mu - renorm_mean) / stddev, -dmax, dmax)


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


#: Activations, each with its derivative, both functions of the input.
ACTIVATIONS = {
    None: (lambda z: z, lambda z: np.ones_like(z)),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    "relu6": (lambda z: np.clip(z, 0, 6), lambda z: ((z > 0) & (z < 6)) * 1.0),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.2 * z), lambda z: np.where(z > 0, 1, 0.2)),
    "sigmoid": (_sigmoid, lambda z: _sigmoid(z) * (1 - _sigmoid(z))),
}
