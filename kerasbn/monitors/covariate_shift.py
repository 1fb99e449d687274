"""Internal covariate shift, measured: how the distribution of a layer's inputs moves while the network trains."""

from typing import Any

import keras
import numpy as np

from kerasbn.arguments import count
from kerasbn.monitors.distributions import gaussian_kl, histogram_kl, samples, wasserstein
from kerasbn.monitors.monitor import Monitor
from kerasbn.monitors.probe import Layers, Probe, channels

METRICS = (
    "mean",
    "deviation",
    "gaussian_kl",
    "histogram_kl",
    "wasserstein",
    "mean_absolute",
    "wasserstein_absolute",
)


def covariate_shift(before: Any, now: Any, bins: int = 32) -> dict[str, np.ndarray]:
    """How far the distribution of some values has moved, for each channel.

        mean            |mean_now - mean_before| / deviation_before
        deviation       |log(deviation_now / deviation_before)|
        gaussian_kl     KL(N(mean_now, deviation_now^2) || N(mean_before, deviation_before^2)), in nats
        histogram_kl    KL of histograms, now against before, in nats
        wasserstein     W1 / deviation_before
        mean_absolute, wasserstein_absolute
                        the same two, not divided: in the unit of the values

    All are 0 if nothing has moved; `histogram_kl` of two samples of one distribution has a floor of about
    ``(bins - 1) / n``. The first five do not depend on the unit of the values: they do not tell a layer that moves far
    from one whose values hardly differed before; the last two do, and fit a nonlinearity with a scale of its own. A
    channel that is constant before, and now is not, is infinitely far from it, but in those two and `histogram_kl`.

    Args:
        before: Array ``[n, channels]``.
        now: Array ``[m, channels]``.
        bins: Integer above 1, of the histograms.

    Returns:
        A dictionary of arrays ``[channels]``.

    Raises:
        ValueError: If the channels differ.

    Example:
    >>> x = np.random.default_rng(0).normal(size=(1000, 1))
    >>> found = covariate_shift(x, x + 2 * x.std())
    >>> {name: round(float(found[name][0]), 1) for name in ("mean", "deviation", "gaussian_kl", "histogram_kl")}
    {'mean': 2.0, 'deviation': 0.0, 'gaussian_kl': 2.0, 'histogram_kl': 1.9}

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Sec. 2, "the change in the
        distribution of network activations due to the change in network parameters during training".
    """
    before, now = samples(before, now, names=("before", "now"))
    distance = wasserstein(before, now)
    mean, deviation, mean_now, deviation_now = before.mean(0), before.std(0), now.mean(0), now.std(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = {
            "mean": np.abs(mean_now - mean) / deviation,
            "deviation": np.abs(np.log(deviation_now / deviation)),
            "wasserstein": distance / deviation,
        }
    # Nothing over nothing: a channel that is constant and has not moved.
    moved = {name: np.where(distance == 0, 0.0, value) for name, value in moved.items()}
    moved |= {"mean_absolute": np.abs(mean_now - mean), "wasserstein_absolute": distance}
    moved["gaussian_kl"] = gaussian_kl(mean_now, deviation_now**2, mean, deviation**2)
    moved["histogram_kl"] = histogram_kl(now, before, bins)
    return {name: moved[name] for name in METRICS}


class CovariateShift(Monitor):
    """Measures for chosen layers how the distribution of their inputs moves, on a fixed batch of examples.

    Each measurement compares the inputs now with those of the measurement before ("step") and of the first ("start");
    see `covariate_shift` for the distances. History, logs, CSV and TensorBoard get the median over the channels,
    which one dead channel does not move, as ``shift/<layer>/<distance>/<step or start>``; `channels` has all channels.
    A `fit` that is resumed keeps the start of the first one; a new process, which does not have it, starts there.

    It costs a forward pass of `x` and a sort of what comes in at each layer, which is kept twice, in float64: for 500
    images, 14 x 14 positions and 64 channels 50 MB each time. Take as few layers and examples as will do.

    Args:
        x: Examples, what the model takes: always the same.
        layers: Names of layers, or a function from a layer to whether it is meant.
        of: `"input"` or `"output"`: what of the layers.
        training: Whether the model is called as in training, so that normalizations take the moments of `x`; otherwise
            their moving statistics. Nothing of the model is changed by it.
        bins: Integer above 1, of the histograms.
        every: Integer above 0, steps between two measurements; `None` for the end of each epoch.
        file: Path of a CSV file that gets a line for each measurement, or `None`. A `fit` from epoch 0 begins it anew;
            one with an `initial_epoch` goes on with it.
        log_dir: Folder for TensorBoard, or `None`.
        model: The model that is measured: `None` for the one that is trained; or one in it, where that has a
            `train_step` and no `call`, as the generator of a GAN.

    Attributes:
        history: A list with a dictionary for each measurement, the first before training: `step`, and the medians.
        channels: A list with a dictionary for each of them: arrays ``[channels]`` by the same names.

    Raises:
        ValueError: If an argument is out of its range; in training, if a layer is not there or called several times.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="a"), keras.layers.Dense(1, name="b")])
    >>> model.compile(keras.optimizers.SGD(0.1), "mse")
    >>> x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    >>> shift = CovariateShift(x, ["b"])
    >>> logs = model.fit(x, x[:, :1], epochs=2, verbose=0, callbacks=[shift]).history
    >>> len(shift.history), logs["shift/b/wasserstein/start"][0] > 0
    (3, True)

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Sec. 2.
        S. Santurkar et al., How Does Batch Normalization Help Optimization?, 2018, https://arxiv.org/abs/1805.11604:
        Sec. 2, where networks with and without it move alike.
    """

    def __init__(
        self,
        x: Any,
        layers: Layers,
        *,
        of: str = "input",
        training: bool = False,
        bins: int = 32,
        every: int | None = None,
        file: Any = None,
        log_dir: Any = None,
        model: keras.Model | None = None,
    ) -> None:
        """Checks and remembers the arguments; see the class."""
        super().__init__(every, file, log_dir, model)
        self.bins = count("bins", bins, 2)
        self._x, self._layers, self._of, self._training = x, layers, of, training
        self.channels: list[dict[str, np.ndarray]] = []

    def make_probe(self) -> Any:
        """Finds the layers."""
        return Probe(self.measured, self._x, self._layers, self._of, self._training)

    def begin(self) -> None:
        """Reads what there is before training."""
        self._last = self._read()
        if not self.history:
            self._first = self._last
        self.channels = self.channels[: len(self.history)]

    def measure(self) -> dict[str, float]:
        """The shift of each layer since the last measurement and since the first."""
        now = self._read()
        found = {
            f"shift/{layer}/{metric}/{since}": values
            for since, past in (("step", self._last), ("start", self._first))
            for layer in self.probe.names
            for metric, values in covariate_shift(past[layer], now[layer], self.bins).items()
        }
        self._last = now
        self.channels.append(found)
        return {name: float(np.median(values)) for name, values in found.items()}

    def _read(self) -> dict[str, np.ndarray]:
        return {name: channels(values) for name, values in self.probe.read().items()}
