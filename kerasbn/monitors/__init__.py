"""What goes on in a network while it trains, measured on a fixed batch: callbacks, and functions for a single look.

The claims of Ioffe & Szegedy (2015) and Bjorck et al. (2018) are about these numbers. No monitor changes the training:
with it and without, the weights are the same.
"""

from kerasbn.monitors.activations import ActivationPercentiles, ActivationStatistics, activation_statistics
from kerasbn.monitors.covariate_shift import CovariateShift, covariate_shift
from kerasbn.monitors.distributions import gaussian_kl, histogram_kl, wasserstein
from kerasbn.monitors.gradients import Gradients, GradientStatistics, gradient_statistics

__all__ = [
    "ActivationPercentiles",
    "ActivationStatistics",
    "CovariateShift",
    "GradientStatistics",
    "Gradients",
    "activation_statistics",
    "covariate_shift",
    "gaussian_kl",
    "gradient_statistics",
    "histogram_kl",
    "wasserstein",
]
