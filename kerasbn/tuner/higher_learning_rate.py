"""The search space of the question how much higher a learning rate may be with batch normalization, and without."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import keras_tuner

from kerasbn.arguments import count, positive
from kerasbn.callbacks import DropoutRemoval, LearningRateAcceleration
from kerasbn.dropout import dropout_rates
from kerasbn.layers.arguments import number, one_of
from kerasbn.optimizers import schedule_of, stepping
from kerasbn.schedule_shape import shape_of
from kerasbn.transforms import batch_normalize, replace_activations, scale_initialization, scale_weight_decay
from kerasbn.transforms.batch_normalization import Where
from kerasbn.transforms.clone import clone
from kerasbn.transforms.rebuild import rebuild
from kerasbn.transforms.serialized import edited

ARMS = ("plain", "normalized")
AS_IS = "as_is"
#: What saturates, what does not, and what lies between.
ACTIVATIONS = ("elu", "gelu", "leaky_relu", "relu", "selu", "sigmoid", "silu", "softplus", "tanh")


class HigherLearningRate(keras_tuner.HyperModel):
    """Your network, plain and batch-normalized, with learning rates from far below to far above yours.

        learning rate = kerasbn/learning_rate_factor * your rate

    Searched are these hyperparameters, beside those of your own `build`; each argument lists the values of one, a
    single value fixes it, and an empty sequence leaves it out:

        ===============================  ==============================================================================
        ``kerasbn/arm``                  ``"plain"``, as it is; ``"normalized"``, by `kerasbn.batch_normalize`
        ``kerasbn/learning_rate_factor`` log-uniform; 1 first
        ``kerasbn/decay_speedup``        how many steps of your schedule pass in one; if it decays without end
        ``kerasbn/warmup_steps``         over so many steps the factor rises from 1
        ``kerasbn/dropout``              the rate that dropout is lowered to: 1 keeps it, 0 removes it; if there is some
        ``kerasbn/weight_decay_factor``  what weight decay, as penalty or in the optimizer, is multiplied by
        ``kerasbn/initialization_scale`` what the initial kernels are multiplied by
        ``kerasbn/activation``           the hidden nonlinearity, ``"as_is"`` for yours
        ``kerasbn/batch_size``           for arrays: that of `fit`
        ``kerasbn/momentum``             of the optimizer, `SGD` or `RMSprop`
        ===============================  ==============================================================================

    A schedule that ends or restarts, such as `CosineDecay`, is followed as it is in all trials: see
    `kerasbn.schedules.Accelerated`.

    It works with every tuner; those of `kerasbn.tuner` make a result of the trials that diverge.

    Args:
        build: Function of `keras_tuner.HyperParameters` that gives a compiled model, or a compiled model. All trials
            and executions start from the weights of a model, so give a function for several initializations.
        arms: One or both of `"plain"` and `"normalized"`.
        learning_rate_factors: The smallest and the largest, floats above 0; twice the same fixes it.
        decay_speedups: Floats above 0, for a rate that is a schedule which decays without end.
        warmup_steps: Integers, not negative.
        dropout: Floats in [0, 1].
        weight_decay_factors: Floats, not negative.
        initialization_scales: Floats above 0; see `kerasbn.transforms.scale_initialization`.
        activations: Names such as ``("as_is", "sigmoid")``; see `kerasbn.transforms.replace_activations`.
        batch_sizes: Integers above 0. An epoch has more steps with smaller ones, unless `steps_per_epoch` is given.
        momenta: Floats in [0, 1).
        where: Where `BatchNorm` goes; see `kerasbn.batch_normalize`.
        **layer_arguments: Those of `BatchNorm`, such as ``momentum=0.9``.

    Raises:
        ValueError: If an argument is out of its range; in building, if the model is not compiled or cannot be copied.

    Example:
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
    >>> model.compile(keras.optimizers.SGD(0.1), "mse")
    >>> space = keras_tuner.HyperParameters()
    >>> hypermodel = HigherLearningRate(model, warmup_steps=(0, 100))
    >>> built = hypermodel.build(space)
    >>> space.values["kerasbn/arm"] = "normalized"
    >>> [type(layer).__name__ for layer in hypermodel.build(space).layers]
    ['Dense', 'BatchNormalization', 'Activation', 'Dense']
    >>> sorted(space.values)  # doctest: +NORMALIZE_WHITESPACE
    ['kerasbn/arm', 'kerasbn/learning_rate_factor', 'kerasbn/warmup_steps', 'kerasbn/weight_decay_factor']

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Sec. 4.2.1, 4.2.2.
        J. Bjorck et al., Understanding Batch Normalization, 2018, https://arxiv.org/abs/1806.02375: Sec. 3.
    """

    def __init__(
        self,
        build: keras.Model | Callable[[Any], keras.Model],
        *,
        arms: Sequence[str] = ARMS,
        learning_rate_factors: tuple[float, float] = (0.1, 100.0),
        decay_speedups: Sequence[float] = (1.0, 6.0),
        warmup_steps: Sequence[int] = (0,),
        dropout: Sequence[float] = (1.0, 0.1, 0.0),
        weight_decay_factors: Sequence[float] = (1.0, 1 / 5),
        initialization_scales: Sequence[float] = (),
        activations: Sequence[str] = (),
        batch_sizes: Sequence[int] = (),
        momenta: Sequence[float] = (),
        where: Where = "pre_activation",
        **layer_arguments: Any,
    ) -> None:
        """Checks and remembers the arguments; see the class."""
        super().__init__()
        self.source, self.where, self.layer_arguments = build, where, layer_arguments
        self.arms = [one_of("arms", arm, ARMS) for arm in some("arms", arms, lowest=1)]
        self.learning_rate_factors = [
            positive("learning_rate_factors", factor) for factor in some("learning_rate_factors", learning_rate_factors)
        ]
        if len(self.learning_rate_factors) != 2 or self.learning_rate_factors != sorted(self.learning_rate_factors):
            raise ValueError(
                "Argument `learning_rate_factors` must be the smallest and the largest one, such as (0.1, 100.0). "
                f"Received: learning_rate_factors={learning_rate_factors!r}."
            )
        self.decay_speedups = [positive("decay_speedups", each) for each in some("decay_speedups", decay_speedups)]
        self.warmup_steps = [count("warmup_steps", each, 0) for each in some("warmup_steps", warmup_steps)]
        self.dropout = [number("dropout", each, 0, 1) for each in some("dropout", dropout)]
        self.weight_decay_factors = [
            number("weight_decay_factors", each, 0) for each in some("weight_decay_factors", weight_decay_factors)
        ]
        self.initialization_scales = [
            positive("initialization_scales", each) for each in some("initialization_scales", initialization_scales)
        ]
        self.activations = [
            one_of("activations", each, (AS_IS, *ACTIVATIONS)) for each in some("activations", activations)
        ]
        self.batch_sizes = [count("batch_sizes", each, 1) for each in some("batch_sizes", batch_sizes)]
        self.momenta = [number("momenta", each, 0, 1) for each in some("momenta", momenta)]
        if 1 in self.momenta:
            raise ValueError(
                f"Argument `momenta` must be below 1: else no step is ever forgotten. Received: momenta={momenta!r}."
            )

    def build(self, hp: Any) -> keras.Model:
        """The model of a trial, compiled with your own rate: it is raised during `fit`."""
        given = isinstance(self.source, keras.Model)
        model: Any = self.source if given else self.source(hp)
        if not model.compiled:
            raise ValueError(
                "Argument `build` must give a compiled model: its optimizer has the learning rate that is raised. "
                f"Received: {model.name!r}, which is not. Call model.compile(...) first."
            )
        self._learning_rate_factor(hp)
        self._decay_speedup(hp, model)
        _one(hp, "warmup_steps", self.warmup_steps)
        if dropout_rates(model):
            _one(hp, "dropout", self.dropout)
        _one(hp, "batch_size", self.batch_sizes)
        decay = _one(hp, "weight_decay_factor", self.weight_decay_factors)
        if given or decay not in (1, None):  # A model that is given is never trained itself, only copies.
            model = scale_weight_decay(model, 1 if decay is None else decay)
        scale = _one(hp, "initialization_scale", self.initialization_scales)
        if scale not in (1, None):
            model = scale_initialization(model, scale)
        activation = _one(hp, "activation", self.activations)
        if activation not in (AS_IS, None):
            model = replace_activations(model, activation)
        momentum = _one(hp, "momentum", self.momenta)
        if momentum is not None:
            model = _with_momentum(model, momentum)
        if _one(hp, "arm", self.arms) == "normalized":
            model = batch_normalize(model, self.where, **self.layer_arguments)
        return model

    def fit(self, hp: Any, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        """Trains `model` with the raised rate and the dropout of the trial."""
        acceleration = LearningRateAcceleration(
            self._learning_rate_factor(hp),
            self._decay_speedup(hp, model),
            warmup_steps=_one(hp, "warmup_steps", self.warmup_steps) or 0,
        )
        callbacks = [*(kwargs.pop("callbacks", None) or []), acceleration]
        dropout = _one(hp, "dropout", self.dropout) if dropout_rates(model) else None
        if dropout is not None:
            callbacks.append(DropoutRemoval(to=dropout))
        if self.batch_sizes:
            kwargs["batch_size"] = _one(hp, "batch_size", self.batch_sizes)
        return model.fit(*args, callbacks=callbacks, **kwargs)

    def _decay_speedup(self, hp: Any, model: keras.Model) -> float:
        schedules = [schedule_of(optimizer) for optimizer in stepping(model.optimizer)]
        if not any(schedule and shape_of(schedule).falls for schedule in schedules):
            return 1.0
        return _one(hp, "decay_speedup", self.decay_speedups) or 1.0

    def _learning_rate_factor(self, hp: Any) -> float:
        name, (low, high) = "kerasbn/learning_rate_factor", self.learning_rate_factors
        if low == high:
            return hp.Fixed(name, low)
        return hp.Float(name, low, high, sampling="log", default=min(max(low, 1.0), high))


def _with_momentum(model: keras.Model, momentum: float) -> keras.Model:
    """A copy of `model` whose optimizer has `momentum`.

    Raises:
        ValueError: If it has none that could be changed, like Adam.
    """
    found = []

    def edit(class_name: str, config: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        if path[:1] != ("optimizer",) or "momentum" not in config:
            return config
        found.append(path)
        return config | {"momentum": momentum}

    new = rebuild(model, lambda operation, where: [clone(operation)], lambda settings: edited(settings, edit)).model
    if not found:
        raise ValueError(
            "Argument `momenta` needs an optimizer with an argument `momentum`, SGD or RMSprop. Received: "
            f"{type(model.optimizer).__name__}. Leave `momenta` out, or compile with keras.optimizers.SGD."
        )
    return new


def some(name: str, values: Any, lowest: int = 0) -> list[Any]:
    """`values` as a list of `lowest` at least."""
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) < lowest:
        raise ValueError(
            f"Argument `{name}` must be a sequence of the values that are searched. Received: {name}={values!r}. "
            "A single value in brackets fixes it."
        )
    return list(values)


def _one(hp: Any, name: str, values: list[Any]) -> Any:
    """The value of the trial, `None` if it is left out."""
    name = f"kerasbn/{name}"
    if not values:
        return None
    return hp.Choice(name, values) if len(values) > 1 else hp.Fixed(name, values[0])
