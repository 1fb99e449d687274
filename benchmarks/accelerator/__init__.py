"""Batch normalization on a GPU: what XLA makes of a training step, and what a card takes for it, beside Keras's layer.

The first part needs no card: XLA's compiler for a described card writes programs, of which kernels and traffic are read
off. Passes: bytes that kernels read and write, in batches; a step needs 8 where a batch is larger than the caches.
"""

from benchmarks.accelerator.table import rows

__all__ = ["rows"]
