"""What the activations of a network look like: percentiles over training, moments by depth."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kerasbn.layers.arguments import number
from kerasbn.monitors.monitor import Monitor
from kerasbn.monitors.probe import Layers, Probe, channels


class ActivationPercentiles(Monitor):
    """Measures percentiles of the inputs of chosen layers over a fixed batch: Fig. 1b and 1c of Ioffe & Szegedy (2015).

    History, logs, CSV and TensorBoard get them as ``percentile/<layer>/<percent>``. It costs a forward pass of `x` each
    time.

    Args:
        x: Examples, what the model takes: always the same.
        layers: Names of layers, or a function from a layer to whether it is meant. The paper's are the inputs of a
            sigmoid of the last hidden layer: name the `Activation`, or take the output of what is before it.
        of: `"input"` or `"output"`: what of the layers.
        percentiles: Floats in [0, 100].
        unit: Index of a channel, or `None` for all values of all channels together.
        training: Whether the model is called as in training, so that normalizations take the moments of `x`; otherwise
            their moving statistics. Nothing of the model is changed by it.
        every: Integer above 0, steps between two measurements; `None` for the end of each epoch.
        file: Path of a CSV file that gets a line for each measurement, or `None`. A `fit` from epoch 0 begins it anew;
            one with an `initial_epoch` goes on with it.
        log_dir: Folder for TensorBoard, or `None`.
        model: The model that is measured: `None` for the one that is trained; or one in it, where that has a
            `train_step` and no `call`, as the generator of a GAN.

    Attributes:
        history: A list with a dictionary for each measurement, the first before training: `step`, and the percentiles.

    Raises:
        ValueError: If an argument is out of its range; in training, if a layer or the channel is not there.

    Example:
    >>> import keras
    >>> layers = [keras.layers.Dense(3), keras.layers.Activation("sigmoid", name="last"), keras.layers.Dense(1)]
    >>> model = keras.Sequential([keras.Input((2,)), *layers])
    >>> model.compile(keras.optimizers.SGD(0.1), "mse")
    >>> x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    >>> monitor = ActivationPercentiles(x, ["last"], unit=0)
    >>> logs = model.fit(x, x[:, :1], verbose=0, callbacks=[monitor]).history
    >>> [name for name in logs if "last" in name]
    ['percentile/last/15', 'percentile/last/50', 'percentile/last/85']

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Sec. 4.1, Fig. 1b, 1c.
    """

    def __init__(
        self,
        x: Any,
        layers: Layers,
        *,
        of: str = "input",
        percentiles: Sequence[float] = (15, 50, 85),
        unit: int | None = None,
        training: bool = False,
        every: int | None = None,
        file: Any = None,
        log_dir: Any = None,
        model: keras.Model | None = None,
    ) -> None:
        """Checks and remembers the arguments; see the class."""
        super().__init__(every, file, log_dir, model)
        self.percentiles = [number("percentiles", each, 0, 100) for each in percentiles]
        self.unit = unit
        self._x, self._layers, self._of, self._training = x, layers, of, training

    def make_probe(self) -> Any:
        """Finds the layers."""
        return Probe(self.measured, self._x, self._layers, self._of, self._training)

    def measure(self) -> dict[str, float]:
        """The percentiles of each layer."""
        found = {}
        for layer, values in self.probe.read().items():
            if self.unit is not None and not -values.shape[-1] <= self.unit < values.shape[-1]:
                raise ValueError(
                    f"Argument `unit` must be a channel of every layer. Received: unit={self.unit}, where {layer!r} "
                    f"has {values.shape[-1]}."
                )
            chosen = values if self.unit is None else values[..., self.unit]
            for percent, value in zip(self.percentiles, np.percentile(chosen, self.percentiles), strict=True):
                found[f"percentile/{layer}/{percent:g}"] = float(value)
        return found


def activation_statistics(
    model: Any, x: Any, layers: Layers, *, of: str = "output", training: bool = True
) -> dict[str, dict[str, np.ndarray]]:
    """Mean and standard deviation of each channel of chosen layers over a batch, in the order of the model.

    At initialisation the means and deviations of a deep network grow with depth; with batch normalization they do not.
    It costs a forward pass.

    Args:
        model: A built functional or Sequential model. Nothing of it is changed.
        x: Examples, what the model takes.
        layers: Names of layers, or a function from a layer to whether it is meant.
        of: `"input"` or `"output"`: what of the layers.
        training: Whether the model is called as in training, with the moments of `x`.

    Returns:
        For each layer a dictionary: `mean` and `deviation`, arrays ``[channels]`` in float64, and `zero`, the part of
        the values of each channel that are exactly 0: 1 for a dead ReLU.

    Raises:
        ValueError: If an argument is out of its range, or a layer is not there or called several times.

    Example:
    >>> import keras
    >>> relu = keras.layers.Dense(1, "relu", kernel_initializer="ones", name="a")
    >>> model = keras.Sequential([keras.Input((1,)), relu])
    >>> found = activation_statistics(model, np.array([[-1.0], [3.0]], "float32"), ["a"])["a"]
    >>> {name: values.tolist() for name, values in found.items()}
    {'mean': [1.5], 'deviation': [1.5], 'zero': [0.5]}

    Reference:
        J. Bjorck et al., Understanding Batch Normalization, 2018, https://arxiv.org/abs/1806.02375: Sec. 3, Fig. 3, 5.
    """
    return channel_statistics(Probe(model, x, layers, of, training))


def channel_statistics(probe: Probe) -> dict[str, dict[str, np.ndarray]]:
    """`activation_statistics` of what `probe` reads: where it is asked again and again, the model is traced once."""
    found = {}
    for layer, values in probe.read().items():
        samples = channels(values)
        with np.errstate(invalid="ignore"):  # what is not finite is to be seen, not to end a training
            found[layer] = {"mean": samples.mean(0), "deviation": samples.std(0), "zero": (samples == 0).mean(0)}
    return found


class ActivationStatistics(Monitor):
    """Measures mean and standard deviation of chosen layers over a fixed batch; see `activation_statistics`.

    History, logs, CSV and TensorBoard get ``activation/<layer>/mean``, the root mean square over channels of their
    means, ``.../deviation``, that of their deviations, and ``.../dead``, the part of channels that are 0 for every
    example. It costs a forward pass of `x` each time.

    Args:
        x: Examples, what the model takes: always the same.
        layers: Names of layers, or a function from a layer to whether it is meant.
        of: `"input"` or `"output"`: what of the layers.
        training: Whether the model is called as in training, with the moments of `x`. Nothing of it is changed.
        every: Integer above 0, steps between two measurements; `None` for the end of each epoch.
        file: Path of a CSV file that gets a line for each measurement, or `None`. A `fit` from epoch 0 begins it anew;
            one with an `initial_epoch` goes on with it.
        log_dir: Folder for TensorBoard, or `None`.
        model: The model that is measured: `None` for the one that is trained; or one in it, where that has a
            `train_step` and no `call`, as the generator of a GAN.

    Attributes:
        history: A list with a dictionary for each measurement, the first before training: `step`, and the numbers.

    Raises:
        ValueError: If an argument is out of its range; in training, if a layer is not there or called several times.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, "relu", name="a"), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    >>> logs = model.fit(x, x[:, :1], verbose=0, callbacks=[ActivationStatistics(x, ["a"])]).history
    >>> logs["activation/a/deviation"][0] > 0
    True

    Reference:
        J. Bjorck et al., Understanding Batch Normalization, 2018, https://arxiv.org/abs/1806.02375: Sec. 3, Fig. 3.
    """

    def __init__(
        self,
        x: Any,
        layers: Layers,
        *,
        of: str = "output",
        training: bool = True,
        every: int | None = None,
        file: Any = None,
        log_dir: Any = None,
        model: keras.Model | None = None,
    ) -> None:
        """Checks and remembers the arguments; see the class."""
        super().__init__(every, file, log_dir, model)
        self._x, self._layers, self._of, self._training = x, layers, of, training

    def make_probe(self) -> Any:
        """Finds the layers."""
        return Probe(self.measured, self._x, self._layers, self._of, self._training)

    def measure(self) -> dict[str, float]:
        """The numbers of each layer."""
        found = {}
        for layer, each in channel_statistics(self.probe).items():
            found[f"activation/{layer}/mean"] = float(np.sqrt(np.mean(each["mean"] ** 2)))
            found[f"activation/{layer}/deviation"] = float(np.sqrt(np.mean(each["deviation"] ** 2)))
            found[f"activation/{layer}/dead"] = float(np.mean(each["zero"] == 1))
        return found
