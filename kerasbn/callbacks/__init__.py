"""Callbacks for `fit`: Sec. 4.2.1 of Ioffe & Szegedy (2015) in a training, its end if it diverges, Alg. 2 after it."""

from kerasbn.callbacks.dropout_removal import DropoutRemoval
from kerasbn.callbacks.learning_rate_acceleration import LearningRateAcceleration
from kerasbn.callbacks.population_statistics import PopulationStatistics
from kerasbn.callbacks.stop_on_divergence import StopOnDivergence

__all__ = ["DropoutRemoval", "LearningRateAcceleration", "PopulationStatistics", "StopOnDivergence"]
