"""What the gradients of a network look like: norms, tails, histograms, and whether they add up or cancel."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasbn.arguments import built, with_call
from kerasbn.arrays import examples
from kerasbn.monitors.monitor import Monitor
from kerasbn.monitors.probe import Layers, chosen, ends
from kerasbn.snapshot import RandomState, Snapshot


@dataclass(frozen=True)
class Gradients:
    """The gradients of a loss with respect to the weights of one layer and to its output.

    Attributes:
        norm: Euclidean norm of the gradient of all trainable weights of the layer together; 0 if it has none.
        kurtosis: E[g^4] / E[g^2]^2 of its entries about 0: 3 for a Gaussian, higher with heavy tails.
        values: Array of all its entries, for histograms.
        absolute_sums: Array ``[channels]``: sum over examples and positions of ``|dloss/doutput|``.
        sums: Array ``[channels]``: the sum of ``dloss/doutput`` over them, which is the gradient of a bias.

    Example:
    >>> found = Gradients.of([np.array([3.0, 4.0])], np.array([[1.0, -1.0], [1.0, 1.0]]))
    >>> found.norm, found.absolute_sums.tolist(), found.coherence.tolist()
    (5.0, [2.0, 2.0], [1.0, 0.0])

    Reference:
        J. Bjorck et al., Understanding Batch Normalization, 2018, https://arxiv.org/abs/1806.02375: Sec. 3.1, 3.2.
    """

    norm: float
    kurtosis: float
    values: np.ndarray
    absolute_sums: np.ndarray
    sums: np.ndarray

    @classmethod
    def of(cls, weights: list[np.ndarray], output: np.ndarray) -> "Gradients":
        """The statistics of gradients: those of the weights, and that of the output, ``[examples, ..., channels]``."""
        values = np.concatenate([np.ravel(each) for each in weights] or [np.zeros(0)]).astype("float64")
        square = np.mean(values**2) if values.size else 0.0
        flat = output.reshape(-1, output.shape[-1]).astype("float64")
        return cls(
            norm=float(np.linalg.norm(values)),
            kurtosis=float(np.mean(values**4) / square**2) if square else float("nan"),
            values=values,
            absolute_sums=np.abs(flat).sum(0),
            sums=flat.sum(0),
        )

    @property
    def coherence(self) -> np.ndarray:
        """For each channel ``|sums| / absolute_sums``: 1 if all examples pull one way, 0 if they cancel."""
        return np.divide(
            np.abs(self.sums), self.absolute_sums, out=np.zeros_like(self.sums), where=self.absolute_sums > 0
        )


def gradient_statistics(model: Any, x: Any, y: Any, layers: Layers) -> dict[str, Gradients]:
    """The gradients of the loss of one batch, by layer, in the order of the model.

    It costs a step of training without the update, and memory for the outputs and their gradients.

    Args:
        model: A compiled functional or Sequential model. It is called as in training, and nothing of it is changed.
        x: Examples, what the model takes.
        y: What they should give.
        layers: Names of layers, or a function from a layer to whether it is meant.

    Returns:
        `Gradients` by the names of the layers.

    Raises:
        ValueError: If the model is not compiled; if a layer is not there or called several times.

    Example:
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="zeros", name="a")])
    >>> model.compile("sgd", "mse")
    >>> found = gradient_statistics(model, np.ones((4, 2), "float32"), np.ones((4, 1), "float32"), ["a"])["a"]
    >>> found.sums.tolist(), found.values.tolist()
    ([-2.0], [-2.0, -2.0, -2.0])

    Reference:
        J. Bjorck et al., Understanding Batch Normalization, 2018, https://arxiv.org/abs/1806.02375: Sec. 3.1, 3.2.
    """
    return _GradientProbe(model, x, y, layers).read()


class _GradientProbe:
    """What reads the gradients of one batch; it is traced once."""

    def __init__(self, model: Any, x: Any, y: Any, layers: Layers) -> None:
        if not built(with_call(model)).compiled:
            raise ValueError(
                f"The model must be compiled, as its loss is meant. Received: {model.name!r}: call `compile`."
            )
        found = chosen(model, layers, "output")
        names = list(found)
        examples("x", x)
        inputs, structure = ends(model)
        part = keras.Model(inputs, [*found.values(), *model.outputs])
        weights = [model.get_layer(name).trainable_variables for name in names]

        @tf.function(autograph=False)
        def gradients(x: Any, y: Any) -> Any:
            with tf.GradientTape() as tape:
                outputs = part(x, training=True)
                predicted = keras.tree.pack_sequence_as(structure, outputs[len(names) :])
                loss = model.compute_loss(x, y, predicted, training=True)
            flat = [variable.value for each in weights for variable in each]
            return tape.gradient(
                loss, [flat, outputs[: len(names)]], unconnected_gradients=tf.UnconnectedGradients.ZERO
            )

        self._model, self._data, self._gradients = model, (x, y), gradients
        self._names, self._weights = names, weights

    def read(self) -> dict[str, Gradients]:
        """The gradients by layer; nothing else happens to the model."""
        model = self._model
        random_state = RandomState()
        state = Snapshot([*model.non_trainable_variables, *model.metrics_variables], model.distribute_strategy)
        try:
            of_weights, of_outputs = self._gradients(*self._data)
        finally:
            state.restore()
            random_state.restore()
        remaining = iter(of_weights)
        return {
            name: Gradients.of([np.asarray(next(remaining)) for _ in own], np.asarray(output))
            for name, own, output in zip(self._names, self._weights, of_outputs, strict=True)
        }


class GradientStatistics(Monitor):
    """Measures the gradients of a fixed batch; see `gradient_statistics`.

    History, logs, CSV and TensorBoard get ``gradient/<layer>/norm``, ``.../kurtosis`` and ``.../coherence``, the mean
    over channels. It costs a step of training without the update each time.

    Args:
        x: Examples, what the model takes: always the same.
        y: What they should give.
        layers: Names of layers, or a function from a layer to whether it is meant.
        every: Integer above 0, steps between two measurements; `None` for the end of each epoch.
        file: Path of a CSV file that gets a line for each measurement, or `None`. A `fit` from epoch 0 begins it anew;
            one with an `initial_epoch` goes on with it.
        log_dir: Folder for TensorBoard, or `None`.
        model: The model that is measured, compiled: `None` for the one that is trained; or one in it, where that has a
            `train_step` and no `call`.

    Attributes:
        history: A list with a dictionary for each measurement, the first before training: `step`, and the numbers.

    Raises:
        ValueError: If an argument is out of its range; in training, if a layer is not there or called several times.

    Example:
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, "relu", name="a"), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    >>> logs = model.fit(x, x[:, :1], verbose=0, callbacks=[GradientStatistics(x, x[:, :1], ["a"])]).history
    >>> logs["gradient/a/norm"][0] > 0
    True

    Reference:
        J. Bjorck et al., Understanding Batch Normalization, 2018, https://arxiv.org/abs/1806.02375: Sec. 3.1, 3.2.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        layers: Layers,
        *,
        every: int | None = None,
        file: Any = None,
        log_dir: Any = None,
        model: keras.Model | None = None,
    ) -> None:
        """Checks and remembers the arguments; see the class."""
        super().__init__(every, file, log_dir, model)
        self._x, self._y, self._layers = x, y, layers

    def make_probe(self) -> Any:
        """Finds the layers."""
        return _GradientProbe(self.measured, self._x, self._y, self._layers)

    def measure(self) -> dict[str, float]:
        """The numbers of each layer."""
        found = {}
        for layer, each in self.probe.read().items():
            found[f"gradient/{layer}/norm"] = each.norm
            found[f"gradient/{layer}/kurtosis"] = each.kurtosis
            found[f"gradient/{layer}/coherence"] = float(each.coherence.mean())
        return found
