"""Training Keras models on several devices and machines: strategies, loss, loss scale, backups."""

from kerasbn.distribute.backup_and_restore import BackupAndRestore
from kerasbn.distribute.joined_loss import JoinedLoss
from kerasbn.distribute.loss_scale_optimizer import LossScaleOptimizer
from kerasbn.distribute.strategies import MirroredStrategy, MultiWorkerMirroredStrategy

__all__ = ["BackupAndRestore", "JoinedLoss", "LossScaleOptimizer", "MirroredStrategy", "MultiWorkerMirroredStrategy"]
