"""A training step of PyTorch's batch normalization, and the floor in PyTorch's operations, as milliseconds.

To be called in a process without TensorFlow: beside it, with the threads of both, the times were not credible.
"""

import time
from functools import lru_cache

import numpy as np
import torch

from benchmarks import floor
from benchmarks.timing import timed

REST = 0.01  # seconds after which PyTorch's threads have ceased to spin


@lru_cache(maxsize=2)  # both layouts of one shape
def batch_norm_step(shape, layout, dtype, threads):
    torch.set_num_threads(threads)

    def tensor(seed):
        values = torch.from_numpy(np.random.default_rng(seed).normal(size=shape))
        values = values.movedim(-1, 1)  # PyTorch's channels come second, wherever they lie in memory
        memory_format = getattr(torch, layout) if values.ndim == 4 else torch.contiguous_format
        return values.to(getattr(torch, dtype)).contiguous(memory_format=memory_format)

    channels = shape[-1]
    x, dy = tensor(0).requires_grad_(), tensor(1)
    gamma, beta = (create(channels, requires_grad=True) for create in (torch.ones, torch.zeros))
    mean, variance = torch.zeros(channels), torch.ones(channels)

    def step():
        y = torch.nn.functional.batch_norm(x, mean, variance, gamma, beta, training=True, momentum=0.01, eps=1e-3)
        torch.autograd.grad(y, [x, gamma, beta], dy)

    return timed(step)


@lru_cache(maxsize=1)
def passes(size, threads):
    torch.set_num_threads(threads)
    return timed(floor.passes(*map(torch.from_numpy, floor.numbers(size)), torch.mul, torch.add))


def rested(step):
    milliseconds = step()
    time.sleep(REST)
    return milliseconds


def batch_norm(shape, layout, dtype, threads):
    return rested(batch_norm_step(tuple(shape), layout, dtype, threads))


def four_passes(size, threads):
    return rested(passes(size, threads))
