"""A learning rate for a model and its data, found by trying."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kerasbn.arguments import a_model, count, positive
from kerasbn.layers.arguments import number
from kerasbn.learning_rate_curve import LearningRateCurve, smooth
from kerasbn.learning_rate_sweep import Sweep, feed, rate_range


def find_learning_rate(
    model: keras.Model,
    data: Any,
    *,
    lowest: float = 1e-6,
    highest: float = 10.0,
    rates: int = 100,
    smoothing: float = 0.2,
    explosion: float = 3.0,
    batch_size: int = 32,
    seed: int = 0,
    compare: Sequence[keras.Model] = (),
) -> LearningRateCurve:
    """Trains for some batches at rates that rise from batch to batch, and leaves everything as it was.

        rate(i) = lowest * (highest / lowest) ** (i / (rates - 1))

    This is the range test of Smith (2017). The model trains as `fit` trains it, with its optimizer, its metrics,
    `jit_compile`, `steps_per_execution`, under its `tf.distribute` strategy. Then, also after an error or an interrupt,
    weights, moving statistics, seeds, slots and counters of the optimizer, its learning rate, metrics and the random
    state of Python, NumPy and Keras are what they were, to the bit: training goes on as if there had been no test.
    Not undone: what `data` has given out, the state of TensorFlow's own random operations, and that a model and an
    optimizer that were not built are built. A schedule that was the learning rate is replaced by an equal one.

    Args:
        model: Compiled model. Its optimizer may be a `LossScaleOptimizer` and have a number or a schedule as its rate.
            It may have a `train_step` in place of a `call`, as a variational autoencoder, if its parts are built and
            the step reports a `loss`.
        data: A tuple of arrays ``(x, y)`` or ``(x, y, sample_weight)``, from which batches are drawn at random; or what
            `fit` takes as `x` and gives batches: `tf.data.Dataset`, `PyDataset`, generator. Repeated as needed, but
            for a generator: the sweep ends with it, and the result says so.
        lowest: Positive float, the first rate.
        highest: Float above `lowest`, the last rate.
        rates: Integer, not below 3, how many rates are tried. Each is held for one call of the training step:
            `steps_per_execution` batches, more if gradients accumulate over more.
        smoothing: Float, not negative: the standard deviation of the weights that smooth the loss, in powers of ten
            of the rate.
        explosion: Positive float: the sweep ends if the loss exceeds the first one by more than so many times its size,
            or is not finite.
        batch_size: Integer, samples in a batch, for arrays.
        seed: Integer, chooses the batches, for arrays.
        compare: Other compiled models to try on the same batches, which a generator cannot give again. `plot` draws all
            curves: models with and without batch normalization show the higher rates that it stands (Bjorck et al.
            2018, Sec. 3).

    Returns:
        `LearningRateCurve` with a rate `suggested`; printed, it is a short table with that rate and the reason. Also
        arrays `rates`, `losses` and `smoothed`, rates `steepest`, `valley` and `largest_stable`, `diverged`,
        `compared`, `ran_out`, and `plot()`.

    Raises:
        ValueError: If an argument is out of its range; if the loss is not finite from the start; if fewer than 3 rates
            could be tried.
        TypeError: If `model` is no model, or `data` nothing that gives batches, or a generator for several models; if
            the learning rate is a function, or a schedule that cannot be serialized.

    Example:
    >>> import keras
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(256, 5))
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    >>> model.compile(keras.optimizers.SGD(0.01), "mse")
    >>> curve = find_learning_rate(model, (x[:, :4], x.sum(1)), lowest=1e-4, highest=100.0)
    >>> 0.001 < curve.suggested < curve.largest_stable < 1.0 < curve.diverged
    True
    >>> bool(model.get_weights()[0].any()), round(float(model.optimizer.learning_rate), 4)
    (False, 0.01)

    Reference:
        L. N. Smith, Cyclical Learning Rates for Training Neural Networks, 2017, https://arxiv.org/abs/1506.01186:
        Sec. 3.3.
        J. Bjorck et al., Understanding Batch Normalization, 2018, https://arxiv.org/abs/1806.02375: Sec. 3.
    """
    lowest, highest = rate_range(lowest, highest)
    tried = np.geomspace(lowest, highest, count("rates", rates, 3))
    width = number("smoothing", smoothing, 0) / math.log10(tried[1] / tried[0])
    explosion, batch_size = positive("explosion", explosion), count("batch_size", batch_size, 1)
    for name, each in (("model", model), *(("compare", other) for other in compare)):
        if not a_model(each).compiled:
            raise ValueError(
                f"Argument `{name}` must be compiled. Received: {each.name!r}, which is not: call `compile`."
            )

    given = feed(data, batch_size, seed, again=bool(compare))

    def curve(model: keras.Model, compared: tuple[LearningRateCurve, ...] = ()) -> LearningRateCurve:
        sweep = Sweep(tried, explosion)
        sweep.run(model, given)
        if not sweep.losses:
            raise ValueError(
                f"Argument `data` must give a loss that is finite before the first step. Received: one that is not, of "
                f"model {model.name!r}. Look for NaN and infinity in the data and in the weights."
            )
        losses = np.array(sweep.losses[1:])  # The first is that of the model as it was, each other that after a step.
        diverged = float(tried[len(losses)]) if sweep.diverged else None
        smoothed = smooth(losses, width)
        rates = tried[: len(losses)]
        return LearningRateCurve(model.name, rates, losses, smoothed, diverged, compared, sweep.ran_out)

    return curve(model, tuple(curve(other) for other in compare))
