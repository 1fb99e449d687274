"""Callbacks: what Sec. 4.2.1 of Ioffe & Szegedy (2015) changes in a training, for `fit`."""

from kerasbn.callbacks.dropout_removal import DropoutRemoval
from kerasbn.callbacks.learning_rate_acceleration import LearningRateAcceleration

__all__ = ["DropoutRemoval", "LearningRateAcceleration"]
