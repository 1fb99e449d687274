"""Backups of training on several workers."""

from typing import Any

import keras
import tensorflow as tf


class BackupAndRestore(keras.callbacks.BackupAndRestore):
    """`keras.callbacks.BackupAndRestore` for several workers: the first one writes, all read.

    With Keras's own, all workers write the same files, or each its own, and a worker that dies between two writes
    leaves the others an epoch ahead of it. All weights are equal on all workers, so one backup is enough. On one worker
    it does what Keras's does.

    Args:
        backup_dir: A folder that every worker sees.
        **kwargs: `save_freq`, `double_checkpoint` and `delete_checkpoint`, as in Keras. With `double_checkpoint=True` a
            worker that dies while it writes leaves the backup before.

    Raises:
        ValueError: If `backup_dir` is empty, or `save_freq` neither `"epoch"` nor an integer.
        TypeError: If Keras's has no such argument.

    Example:
        >>> import kerasbn
        >>> callback = kerasbn.distribute.BackupAndRestore("/shared/backup", double_checkpoint=True)
    """

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes a backup, on the first worker."""
        if _is_chief():
            super().on_epoch_end(epoch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Writes a backup, on the first worker."""
        if _is_chief():
            super().on_train_batch_end(batch, logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Removes the backup, on the first worker."""
        if _is_chief():
            super().on_train_end(logs)


def _is_chief() -> bool:
    cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    return (
        not cluster.task_type
        or cluster.task_type == "chief"
        or (cluster.task_type == "worker" and cluster.task_id == 0 and "chief" not in cluster.cluster_spec().jobs)
    )
