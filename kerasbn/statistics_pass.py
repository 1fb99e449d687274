"""One pass over data in training mode, in which the inputs of normalization layers are measured."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kerasbn.calls import InInferenceMode, TakenOver, as_it_is
from kerasbn.kernels import strategy
from kerasbn.kernels.batch_moments import batch_moments
from kerasbn.kernels.shared_trace import shared_trace
from kerasbn.kernels.view import View
from kerasbn.layers.arguments import parse_inputs, parse_mask
from kerasbn.moments import Moments, merge
from kerasbn.selection import batch_norms
from kerasbn.sync import merge_over_replicas, sum_over_replicas

# One trace for all layers: what a pass waits for is Python that builds graphs.
_batch_moments, _merge = shared_trace(batch_moments), shared_trace(merge)


class Population(NamedTuple):
    """Moments of all that a layer got, float64 arrays of the shape of its weights.

    Attributes:
        values: How many there were.
        mean: Their mean, 0 where there are none.
        variance: Their unbiased variance, 0 where there is at most one.
    """

    values: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


class Measured(NamedTuple):
    """What a pass found: the numbers of batches and samples, and for each layer its population."""

    batches: int
    samples: int
    populations: list[Population]


class NotFiniteError(ValueError):
    """A layer gets values that are NaN or infinite."""


class StatisticsPass:
    """A pass of a model over data in training mode. It moves no moving statistic, but seeds and whatever else moves."""

    def __init__(self, model: keras.Model, layers: Sequence[keras.layers.BatchNormalization], forced: bool) -> None:
        """Prepares a pass, in the scope of the model's strategy.

        Args:
            model: The model.
            layers: Those that are measured, where they are called in training mode.
            forced: Whether these are always in training mode, and all other normalization layers never.
        """
        self._model, self._layers, self._forced = model, layers, forced
        self._tallies = [_Tally(layer.moving_mean.shape) for layer in layers]
        self._samples = _per_replica([])
        self._driver = _Driver(model, self._samples)
        self._join = tf.function(lambda: model.distribute_strategy.run(self._joined), autograph=False)

    def over(self, data: Any, steps: int | None, verbose: int) -> Measured:
        """Runs over `data`, or `steps` batches of it. What was traced is kept for the next time.

        Raises:
            ValueError: If the data have no batch; if a layer cannot be measured.
        """
        strategy = self._model.distribute_strategy
        for variable in (self._samples, *(v for tally in self._tallies for v in tally.variables)):
            for copy in strategy.experimental_local_results(variable):
                copy.assign(tf.zeros_like(copy))
        with self._taken_over(), warnings.catch_warnings():
            if steps is None:  # Keras warns wherever data of unknown length end, even if all of them were asked for.
                warnings.filterwarnings("ignore", "Your input ran out of data")
            try:
                # One number for each replica and batch.
                numbers = self._driver.predict(data, steps=steps, verbose=verbose)
            except UnboundLocalError as error:  # Keras's answer to data without a batch
                raise no_batch(data) from error
        found, samples = tf.nest.map_structure(
            lambda value: strategy.experimental_local_results(value)[0].numpy(), self._join()
        )
        populations = [_checked(*each) for each in zip(self._layers, found, strict=True)]
        return Measured(len(numbers) // strategy.num_replicas_in_sync, int(samples), populations)

    def _joined(self) -> tuple[list[Moments], tf.Tensor]:
        return [tally.joined() for tally in self._tallies], sum_over_replicas(tf.identity(self._samples))

    @contextmanager
    def _taken_over(self) -> Iterator[None]:
        measured = {id(layer): tally for layer, tally in zip(self._layers, self._tallies, strict=True)}
        norms = batch_norms(self._model) if self._forced else self._layers
        undo = [as_it_is(layer) for layer in norms]
        try:
            for layer in norms:
                if id(layer) not in measured:
                    layer.call = InInferenceMode(layer)
                    continue
                layer.call = _Measuring(layer, measured[id(layer)], self._forced)
                if self._forced:
                    layer.trainable = True
            yield
        finally:
            for layer, back in zip(norms, undo, strict=True):
                back(layer)


def no_batch(data: Any) -> ValueError:
    """The error that says that the data are empty."""
    return ValueError(
        f"Argument `data` must give at least one batch. Received: a {type(data).__name__} without any; a generator is "
        "empty after it was used once."
    )


class _Driver(keras.Model):
    """What reads the data: `predict` of a model whose step is a forward pass in training mode."""

    def __init__(self, model: keras.Model, samples: tf.Variable) -> None:
        super().__init__()
        self.model, self.samples = model, samples
        self.run_eagerly = model.run_eagerly
        self.jit_compile = False
        self.built = True

    def predict_step(self, data: Any) -> tf.Tensor:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        self.model(x, training=True)
        self.samples.assign_add(tf.cast(tf.shape(keras.tree.flatten(x)[0])[0], self.samples.dtype))
        return tf.zeros([1])


class _Tally:
    """The moments of all that a layer got so far on this replica, in float64."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.variables = Moments(*(_per_replica(shape) for _ in Moments._fields))

    def add(self, moments: Moments) -> None:
        shape = self.variables.center.shape
        new = [tf.cast(tf.reshape(tf.broadcast_to(f, tf.shape(moments.center)), shape), "float64") for f in moments]
        merged = _merge(Moments(*(tf.stack([old, part]) for old, part in zip(self.variables, new, strict=True))))
        for old, value in zip(self.variables, merged, strict=True):
            old.assign(value)

    def joined(self) -> Moments:
        """The moments over all replicas."""
        return merge_over_replicas(Moments(*(tf.identity(field) for field in self.variables)))


class _Measuring(TakenOver):
    """The call of a layer whose inputs are added to a tally, and whose moving statistics stay."""

    def __init__(self, layer: keras.layers.BatchNormalization, tally: _Tally, forced: bool) -> None:
        super().__init__(layer)
        self.tally, self.forced = tally, forced

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = self.bound(*args, **kwargs)
        # A class whose call has no `training` does in training what it does in inference: it is measured as well.
        if not (self.forced or self.argument(bound, "training", default=True)):
            return self.run(bound, False)
        self.tally.add(_moments(self.layer, bound.args[1], self.argument(bound, "mask")))
        # Else the correction of `renorm` would change from batch to batch.
        held = [(variable, tf.identity(variable)) for variable in self.layer.non_trainable_variables]
        y = self.run(bound, True if self.forced else None)
        for variable, value in held:
            variable.assign(value)
        return y


def _moments(layer: keras.layers.BatchNormalization, inputs: Any, mask: Any) -> Moments:
    x = parse_inputs(inputs, "float32")
    rank = len(x.shape)
    view = View.of(rank, {axis % rank: size for axis, size in layer.input_spec.axes.items()})
    if mask is not None:
        mask = view.collapse_mask(parse_mask(mask, x), x)
    dtype = keras.backend.result_type(x.dtype, "float32")
    # A pass is too short to pay for compiling.
    run = {"axes": view.averaged, "dtype": dtype, "on_cpu": strategy.on_cpu(), "jit_compile": False}
    return _batch_moments(view.collapse(x), mask, **run)


def _checked(layer: keras.layers.BatchNormalization, moments: Moments) -> Population:
    mean, variance = moments.mean, moments.m2 / np.maximum(moments.count - 1, 1)
    wrong = np.count_nonzero(~np.isfinite(mean + variance))
    if wrong:
        raise NotFiniteError(
            f"Argument `data` must give every layer finite values. Received: values that are not, in {wrong} of "
            f"{mean.size} channels of layer {layer.path!r}. Look for NaN in the data and in the weights."
        )
    return Population(moments.count, mean, variance)


def _per_replica(shape: Sequence[int]) -> tf.Variable:
    """Zeros in float64, on each replica for itself."""
    return tf.Variable(tf.zeros(shape, "float64"), trainable=False, synchronization=tf.VariableSynchronization.ON_READ)
