"""Population statistics: what batch normalization uses in inference (Ioffe & Szegedy 2015, Alg. 2)."""

from contextlib import ExitStack
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kerasbn.arguments import built, count, with_call
from kerasbn.arrays import arrays, batches_or
from kerasbn.cardinality import check_end, progress
from kerasbn.freezing import is_frozen
from kerasbn.selection import Selection, batch_norms
from kerasbn.snapshot import RandomState, Snapshot
from kerasbn.statistics_pass import Population, StatisticsPass
from kerasbn.table import table


class LayerPopulation(NamedTuple):
    """What `recalibrate` found for one layer; arrays are float64, of the shape of the layer's weights.

    Attributes:
        layer: The path of the layer, as in ``"backbone/conv1_bn"``.
        values: How many values were averaged, in the channel that has fewest of those that got any. If 0, no channel
            got any, and the layer was left as it was.
        mean: The population mean; NaN in a channel that got no values (all were masked), which was left as it was. So
            are the following.
        variance: The population variance, unbiased.
        shift: How far the moving mean was from it, ``(moving_mean - mean) / sqrt(variance + epsilon)``: in sigmas.
        stretch: The ratio of the standard deviations, ``sqrt((moving_variance + epsilon) / (variance + epsilon))``.
    """

    layer: str
    values: int
    mean: np.ndarray
    variance: np.ndarray
    shift: np.ndarray
    stretch: np.ndarray


class Recalibration(NamedTuple):
    """What `recalibrate` returns; as text it is a table.

    Attributes:
        batches: How many batches were read.
        samples: How many samples were in them.
        layers: A `LayerPopulation` for each layer.
    """

    batches: int
    samples: int
    layers: list[LayerPopulation]

    def __str__(self) -> str:
        """A line for each layer: the values averaged, the largest shift, the smallest and the largest stretch."""
        rows = [
            (each.layer, f"{each.values}", _largest(np.abs(each.shift)), _range(each.stretch)) for each in self.layers
        ]
        title = f"{self.samples} samples in {self.batches} batches"
        return f"{title}\n{table([('layer', 'values', 'mean off by (sigmas)', 'sigma times'), *rows])}"


def recalibrate(
    model: keras.Model,
    data: Any,
    steps: int | None = None,
    *,
    layers: Selection = None,
    batch_size: int = 32,
    seed: int = 0,
    verbose: int | str = "auto",
) -> Recalibration:
    """Sets the moving statistics of batch normalizations to the statistics of the population, in place.

    The model runs over the data once in training mode with the weights that it has. Over all `n` values `x_i` that a
    channel of a layer gets in all batches (those under a mask, if there is one),

        moving_mean     = sum(x_i) / n
        moving_variance = sum((x_i - moving_mean)^2) / (n - 1)

    Each value comes from a forward pass in which the layers before normalized with their batch, as in training, and
    all layers are done in the same pass. The sums are those of Alg. 2, lines 8 to 11, but for one thing: Alg. 2 has
    the mean of the variances within batches, ``m / (m - 1) E[var_B]``, and here the variance of the batch means is
    part, ``E[var_B] + Var[mean_B]``, as in Wu & Johnson (2021), Sec. 3.2. The two agree if values of a batch are
    independent. They are not where a batch holds all pixels of an image or all steps of a sequence: then the first
    one is too small, and depends on the batch size. Moments of batches merge by count in float64 (Chan et al. 1983),
    so batches may have any size, and the last one counts for what it is.

    A moving average, which this replaces, lags behind the weights, weighs the last ``1 / (1 - momentum)`` batches and
    is wrong after weights were averaged, pruned or changed by hand, or when the data are others (*AdaBN*: give data
    of the new domain).

    Everything else is as it was, to the bit: weights, gradients' slots, dropout's seeds, metrics, the random state of
    Python, NumPy and Keras. If the data raise, or you interrupt, the statistics too. Layers with `renorm` have
    `moving_stddev` set as well; their `renorm_mean` and `renorm_stddev` belong to training and stay, and hold still
    during the pass.

    Under a `tf.distribute` strategy each replica takes its share of a batch, and all end with the same statistics.

    Args:
        model: The model, built; it need not be compiled. Its class's `call` gets ``x, training=True``, whatever
            `train_step` does. Of a model that has no `call` (a GAN), hand in the inner model.
        data: Arrays `x` or a tuple of arrays ``(x, ...)``, which are put in random order; or what `predict` takes
            and gives batches ``(x, ...)``: `tf.data.Dataset`, also of ``x``, `PyDataset`, generator. Only `x` is used.
            Give what the model is trained on, augmented in the same way, in batches of the same size; some thousands
            of samples do.
        steps: Integer, how many batches are read, or `None` for all; needed for data without end (`repeat()`).
        layers: Which: `None` for all, at any depth, that run in training mode in training: those with ``trainable =
            False``, frozen (`kerasbn.freeze`) or called with ``training=False`` in Python code (functional models
            override that) stay as they are, and normalize with what they have. Or a name or several, or a function of
            a layer that says whether it is meant: these are run in training mode whatever they are, and all others in
            inference mode. A layer stands for all in it.
        batch_size: Integer, samples in a batch, for arrays.
        seed: Integer, chooses the order, for arrays.
        verbose: 0 for silence, 1 for a progress bar, 2 for one line, as in `predict`. `"auto"` shows a progress bar if
            `steps` is `None` and the data do not say how many batches they have: generators, and datasets of unknown
            cardinality.

    Returns:
        `Recalibration`: the numbers of batches and samples, and for each layer the statistics and how far the moving
        ones were from them.

    Raises:
        ValueError: If an argument is out of its range; if `model` is not built or has no `call`; if `layers` names one
            that is not there; if there is no batch normalization or none that gets values; if the data have no batch,
            or no end and `steps` is `None`; if a layer gets values that are not finite.
        TypeError: If `model` is no Keras model, or `data` nothing that gives batches.

    Example:
    >>> import kerasbn
    >>> x = np.random.default_rng(0).normal(5.0, 2.0, size=(1000, 3))
    >>> model = keras.Sequential([keras.Input((3,)), kerasbn.BatchNorm(name="bn"), keras.layers.Dense(1)])
    >>> found = recalibrate(model, x)
    >>> bool(np.allclose(model.layers[0].moving_mean, x.mean(0))), found.batches, found.layers[0].values
    (True, 32, 1000)

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Alg. 2, lines 8-11.
        Y. Wu & J. Johnson, Rethinking "Batch" in BatchNorm, 2021, https://arxiv.org/abs/2105.07576: Sec. 3.
        Y. Li et al., Revisiting Batch Normalization for Practical Domain Adaptation, 2016,
        https://arxiv.org/abs/1603.04779: AdaBN.
    """
    return Recalibrator(model, layers)(data, steps, batch_size=batch_size, seed=seed, verbose=verbose)


class Recalibrator:
    """`recalibrate`, for several times: the model is traced once.

    Attributes:
        model: The model.
        layers: The layers that are recalibrated.
        statistics: Their variables that are written.
    """

    def __init__(self, model: keras.Model, layers: Selection = None) -> None:
        """Decides which layers are recalibrated; see `recalibrate`."""
        norms = batch_norms(built(with_call(model)), layers)
        self.model = model
        self.layers = norms if layers is not None else [layer for layer in norms if not is_frozen(layer)]
        self._named = layers is not None
        if not self.layers:
            raise ValueError(
                f"Argument `model` must have a batch normalization that is not frozen. Received: {model.name!r}, in "
                f"which all {len(norms)} are. Name those that are meant, which then count although they are frozen: "
                f"layers={norms[0].name!r}."
            )
        self.statistics = [variable for layer in self.layers for variable in _statistics(layer)]
        with model.distribute_strategy.scope():
            self._pass = StatisticsPass(model, self.layers, forced=self._named)

    def __call__(
        self, data: Any, steps: int | None = None, *, batch_size: int = 32, seed: int = 0, verbose: int | str = "auto"
    ) -> Recalibration:
        """Recalibrates the layers; see `recalibrate`."""
        steps = None if steps is None else count("steps", steps, 1)
        data = _batches(data, count("batch_size", batch_size, 1), steps, seed)
        check_end(data, steps)
        with ExitStack() as undo:
            undo.callback(RandomState().restore)
            state = [*self.model.variables, *self.model.metrics_variables]
            undo.callback(Snapshot(state, self.model.distribute_strategy).restore)
            measured = self._pass.over(data, steps, progress(verbose, data, steps))
        _check_any(self.layers, measured.populations, self._named)
        found = [_compared(*each) for each in zip(self.layers, measured.populations, strict=True)]
        for layer, population in zip(self.layers, measured.populations, strict=True):
            _store(layer, population, self.model.distribute_strategy)
        return Recalibration(measured.batches, measured.samples, found)


class _Shuffled(keras.utils.PyDataset):
    """Batches of arrays in random order, each sample once."""

    def __init__(self, x: Any, batch_size: int, steps: int | None, seed: int) -> None:
        super().__init__()
        self.x, self.batch_size = x, batch_size
        self.order = np.random.default_rng(seed).permutation(len(keras.tree.flatten(x)[0]))
        if steps is not None:
            self.order = self.order[: steps * batch_size]

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[Any]:
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return (keras.tree.map_structure(lambda array: array[rows], self.x),)


def _batches(data: Any, batch_size: int, steps: int | None, seed: int) -> Any:
    """What `predict` reads batches from."""
    x = in_arrays(data)
    return data if x is None else _Shuffled(x, batch_size, steps, seed)


def in_arrays(data: Any) -> Any:
    """The arrays `x` that `data` are, checked; `None` if they are something that gives batches.

    Raises:
        ValueError: If the arrays are not such that batches can be made of them.
        TypeError: If `data` are neither.
    """
    x = data[:1] if isinstance(data, tuple) else data
    if isinstance(x, tuple | dict | list) or hasattr(x, "shape"):
        found = arrays("data", x)
        return found[0] if isinstance(x, tuple) else found
    batches_or("arrays `x`, a tuple of arrays (x, ...)", data)
    return None


def _check_any(layers: list[keras.layers.BatchNormalization], populations: list[Population], named: bool) -> None:
    missed = [layer.name for layer, found in zip(layers, populations, strict=True) if not found.values.any()]
    if len(missed) == len(layers) or (missed and named):
        raise ValueError(
            "Argument `model` must call the layers that are recalibrated when it is called with training=True, on "
            f"values that no mask leaves out. Received: {missed}, which got none. Name layers in `layers` to run them "
            "in training mode even where they are called with training=False."
        )


def _compared(layer: keras.layers.BatchNormalization, population: Population) -> LayerPopulation:
    moving_mean, moving_variance = (np.asarray(v, "float64") for v in (layer.moving_mean, layer.moving_variance))
    counted = population.values > 0
    mean, variance = (np.where(counted, v, np.nan) for v in (population.mean, population.variance))
    with np.errstate(divide="ignore", invalid="ignore"):  # a moving variance may be negative, and epsilon 0
        shift = (moving_mean - mean) / np.sqrt(variance + layer.epsilon)
        stretch = np.sqrt((moving_variance + layer.epsilon) / (variance + layer.epsilon))
    values = int(population.values[counted].min()) if counted.any() else 0
    return LayerPopulation(layer.path, values, mean, variance, shift, stretch)


def _statistics(layer: keras.layers.BatchNormalization) -> list[keras.Variable]:
    """What inference uses: mean, variance and, as training computes the variance of it again, the deviation."""
    return [layer.moving_mean, layer.moving_variance, *([layer.moving_stddev] if layer.renorm else [])]


def _store(layer: keras.layers.BatchNormalization, population: Population, strategy: tf.distribute.Strategy) -> None:
    """Gives every replica's copy the values, where something was counted."""
    values = (population.mean, population.variance, np.sqrt(population.variance + layer.epsilon))
    for variable, value in zip(_statistics(layer), values, strict=False):
        for copy in strategy.experimental_local_results(variable.value):
            copy.assign(np.where(population.values > 0, value, copy.numpy()).astype(copy.dtype.as_numpy_dtype))


def _largest(values: np.ndarray) -> str:
    return "-" if np.isnan(values).all() else f"{np.nanmax(values):.3g}"


def _range(values: np.ndarray) -> str:
    return "-" if np.isnan(values).all() else f"{np.nanmin(values):.3g} to {np.nanmax(values):.3g}"
