"""Callbacks for `fit`: what Sec. 4.2.1 of Ioffe & Szegedy (2015) changes in a training, and Alg. 2 after it."""

from kerasbn.callbacks.dropout_removal import DropoutRemoval
from kerasbn.callbacks.learning_rate_acceleration import LearningRateAcceleration
from kerasbn.callbacks.population_statistics import PopulationStatistics

__all__ = ["DropoutRemoval", "LearningRateAcceleration", "PopulationStatistics"]
