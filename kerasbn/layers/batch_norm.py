"""The batch normalization layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from kerasbn.kernels import strategy
from kerasbn.kernels.batch_moments import batch_moments
from kerasbn.kernels.batch_norm import Settings
from kerasbn.kernels.compilation import Program, compiles
from kerasbn.kernels.differentiable import batch_normalize
from kerasbn.kernels.groups import by_groups
from kerasbn.kernels.moving_statistics import Moved, MovingStatistics, Update
from kerasbn.kernels.passes import find_moments
from kerasbn.kernels.view import GROUPS, View
from kerasbn.kernels.xla import gradients_are_recorded
from kerasbn.layers import arguments
from kerasbn.moments import Moments
from kerasbn.sync import mean_over_replicas, merge_over_replicas, sum_over_replicas

#: Activations that are computed within the kernels. They are elementwise, and cheap enough to compute twice.
FUSED_ACTIVATIONS = (keras.activations.relu, keras.activations.relu6, keras.activations.leaky_relu)


@keras.saving.register_keras_serializable("kerasbn")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalization: a drop-in for `keras.layers.BatchNormalization`, accurate at any mean and compiled by XLA.

    In training (Ioffe & Szegedy 2015, Alg. 1), with mean and variance of the mini-batch, one of each a channel:

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta
        moving_mean     += (1 - momentum) * (mean - moving_mean)
        moving_variance += (1 - momentum) * (variance - moving_variance)

    and in inference the same `y` with the moving statistics. Training means ``training=True``, as in `fit`, on a
    layer whose `trainable` is `True`; a layer with ``trainable = False`` runs in inference mode and changes nothing,
    as in Keras.

    Statistics are computed in float32 at least. The output for float32 inputs is within 2e-5 of that of float64
    arithmetic, relative to its size, whether the mean is 0 or 1e6 standard deviations, and with outliers. A batch in
    which nothing is counted (no sample, or all masked) moves no statistic, nor does a channel in which a value is not
    finite: a step that a loss scale skips leaves no trace. Nor does a channel whose summed squared deviations are
    beyond float32, about 3e38; its output is `beta`, and its gradients, but that of `beta`, are 0.

    Under rematerialization (`keras.remat`, `tf.recompute_grad`) the forward pass runs twice, and moving statistics move
    twice a step. With ``momentum ** 0.5`` they are those of a step that runs once.

    Derivatives of any order are there in reverse mode (`tf.GradientTape`, nested too). Forward mode
    (`tf.autodiff.ForwardAccumulator`) sees none in training: TensorFlow lacks it for custom gradients.

    Args:
        axis: Integer, the axis that keeps its own statistics (the channels), or a sequence of integers for
            *per-activation* normalization over several (Sec. 4.2.3), e.g. ``(1, 2, 3)``; weights then have those
            sizes, in ascending order of the axes. All other axes are averaged over; at least one must be left.
        momentum: Float in [0, 1], the share of the old value in an update of the moving statistics, or `None` for the
            plain average of all batches so far (as in PyTorch). `None` adds a weight, `moving_count`, the number
            of batches, int64.
        epsilon: Float, not negative, added to the variance.
        center: Whether there is an offset `beta`.
        scale: Whether there is a factor `gamma`.
        beta_initializer: Initializer of `beta`.
        gamma_initializer: Initializer of `gamma`.
        moving_mean_initializer: Initializer of `moving_mean`.
        moving_variance_initializer: Initializer of `moving_variance`.
        beta_regularizer: Optional regularizer of `beta`.
        gamma_regularizer: Optional regularizer of `gamma`.
        beta_constraint: Optional constraint on `beta`.
        gamma_constraint: Optional constraint on `gamma`.
        renorm: Whether to use batch renormalization (Ioffe 2017, arXiv 1702.03275): in training
            ``y = gamma * (x_hat * r + d) + beta`` with ``r = stddev / renorm_stddev``, ``d = (mean - renorm_mean) /
            renorm_stddev``, both without gradient. Three more weights.
        renorm_clipping: With `renorm`, a dictionary with any of `"rmax"`, `"rmin"`, `"dmax"`: r is clipped to [rmin,
            rmax] and d to [-dmax, dmax]. Absent bounds do not clip.
        renorm_momentum: Float in [0, 1], the momentum of `renorm_mean` and `renorm_stddev`.
        synchronized: Whether replicas of a `tf.distribute` strategy normalize with the moments of the global batch: one
            collective forward, one backward, shards of any size, masks too.
        sync_group_size: Integer, or `None` for all: with `synchronized`, how many consecutive replicas normalize with
            the moments of their joined batch. It must divide the number of replicas.
        unbiased: Whether the moving variance takes the unbiased variance ``m / (m - 1) * variance`` (Alg. 2, line
            10), m being the number of values averaged. The batch itself is always normalized with the biased one.
        activation: What is applied to the result: a name or function as in `keras.activations`, a layer, or `None` for
            nothing. The same as a layer of its own behind this one; ReLU, ReLU6 and leaky ReLU are computed with the
            normalization, forward and backward, and save two passes over memory and a tensor between the two.
        virtual_batch_size: Integer, or `None` for the whole batch: in training, groups of so many consecutive samples
            are normalized each with moments of their own (*ghost* batch normalization, Hoffer et al. 2017, Alg. 1),
            and the moving statistics move by one group after the other. The remainder of a batch that does not divide
            is a smaller group.
        jit_compile: Whether XLA compiles the training step of the layer. `True`: at the first step with each batch
            size. `False`: never by the layer itself. `"auto"`: in a graph (`fit`, `tf.function`) on CPUs, in the
            background, for batches of at least 4 MB whose size has come often enough to pay for it; until compiled
            kernels are ready, the layer computes with TensorFlow's operations, so no step waits. It compiles at most
            128 sizes in a process, and none where `tf.config.experimental.enable_op_determinism` was called. Nothing is
            compiled in graphs that are traced under `tf.debugging.enable_check_numerics` or
            `tf.debugging.experimental.enable_dump_debug_info`.
            Inference is never compiled by the layer, for converters and servers; `kerasbn.uncompiled` is for exporting
            graphs that normalize with the batch. Inside a program that XLA compiles as a whole
            (``compile(jit_compile=True)``) all three are compiled with it, `True` and `"auto"` with the kernels that
            are made for XLA.
        **kwargs: Those of `keras.layers.Layer`: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: Floating-point tensor of rank 2 or more. Integers are taken as float32. bfloat16 and float16 are
            widened where they are computed with, not stored.
        training: Whether to normalize with the batch (`True`) or with the moving statistics (`False`, `None`).
        mask: Optional booleans of the shape of `inputs` without the last axis. Values where it is `False` have no
            part in the statistics. They are normalized all the same; those that are not finite give `beta`, and no
            gradient.

    Returns:
        Tensor of the shape of `inputs` in the layer's compute dtype.

    Raises:
        ValueError: If an argument is out of its range, or does not fit the input.
        TypeError: If `axis` is not made of integers.

    Example:
    >>> import numpy as np
    >>> layer = BatchNorm(momentum=0.5, epsilon=0.0)
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]], "float32")
    >>> layer(x, training=True).numpy().tolist()
    [[-1.0, -1.0], [1.0, 1.0]]
    >>> layer.moving_mean.numpy().tolist(), layer.moving_variance.numpy().tolist()
    ([1.0, 10.0], [1.0, 50.5])

    Reference:
        S. Ioffe & C. Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167: Alg. 1, Alg. 2, Sec. 3.2.
    """

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        momentum: float | None = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        renorm: bool = False,
        renorm_clipping: Mapping[str, float] | None = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        *,
        sync_group_size: int | None = None,
        unbiased: bool = False,
        activation: Any = None,
        virtual_batch_size: int | None = None,
        jit_compile: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        """Checks and remembers the arguments; see the class."""
        # Arguments of which kerasbn allows more than Keras does are left out here and set below.
        super().__init__(
            epsilon=arguments.number("epsilon", epsilon, 0),
            center=center,
            scale=scale,
            beta_initializer=beta_initializer,
            gamma_initializer=gamma_initializer,
            moving_mean_initializer=moving_mean_initializer,
            moving_variance_initializer=moving_variance_initializer,
            beta_regularizer=beta_regularizer,
            gamma_regularizer=gamma_regularizer,
            beta_constraint=beta_constraint,
            gamma_constraint=gamma_constraint,
            synchronized=synchronized,
            **kwargs,
        )
        self.axis = arguments.parse_axis(axis)
        self.momentum = None if momentum is None else arguments.number("momentum", momentum, 0, 1)
        self.renorm = renorm
        self.renorm_clipping = arguments.parse_clipping(renorm_clipping) if renorm else renorm_clipping
        self.renorm_momentum = arguments.number("renorm_momentum", renorm_momentum, 0, 1)
        self.unbiased = unbiased
        self.activation = keras.activations.get(activation)
        self.virtual_batch_size = arguments.optional_count("virtual_batch_size", virtual_batch_size)
        self.sync_group_size = arguments.optional_count("sync_group_size", sync_group_size)
        if self.sync_group_size and not synchronized:
            raise ValueError(
                "Argument `sync_group_size` must be None unless `synchronized` is True. "
                f"Received: sync_group_size={sync_group_size!r}, synchronized={synchronized!r}. Set synchronized=True."
            )
        if synchronized and self.virtual_batch_size:
            raise ValueError(
                "Argument `virtual_batch_size` must be None if `synchronized` is True: the one splits the batch of a "
                "replica, the other joins those of all replicas. "
                f"Received: virtual_batch_size={virtual_batch_size!r}, synchronized={synchronized!r}."
            )
        self.jit_compile = arguments.one_of("jit_compile", jit_compile, ("auto", True, False))

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Makes the weights, in Keras's order: gamma, beta, moving_mean, moving_variance, then those of `renorm`."""
        sizes = arguments.kept_sizes(self.axis, input_shape, self._axis_hint)
        shape = tuple(sizes.values())
        self._view = View.of(len(input_shape), sizes)
        if self.virtual_batch_size:
            if 0 in sizes:
                raise ValueError(
                    "Argument `virtual_batch_size` needs a batch axis that is averaged over. "
                    f"Received: virtual_batch_size={self.virtual_batch_size}, axis={self.axis!r}. Leave out axis 0."
                )
            self._view = View.of(len(input_shape) + 1, {0: GROUPS} | {a + 1: size for a, size in sizes.items()})
        # How a weight broadcasts against an input: as it is if it lies along the last axis.
        last = tuple(sizes) == (len(input_shape) - 1,)
        self._broadcast_shape = shape if last else tuple(sizes.get(axis, 1) for axis in range(len(input_shape)))
        self.input_spec = keras.layers.InputSpec(ndim=len(input_shape), axes=sizes)

        def parameter(name):
            return self.add_weight(
                shape=shape,
                name=name,
                initializer=getattr(self, f"{name}_initializer"),
                regularizer=getattr(self, f"{name}_regularizer"),
                constraint=getattr(self, f"{name}_constraint"),
                autocast=False,
            )

        # A moving average in half precision would stop moving: an update of 1 % is below its rounding error.
        statistics_dtype = keras.backend.result_type(self.variable_dtype, "float32")

        def statistic(name, initializer, dtype=statistics_dtype):
            return self.add_weight(
                shape=shape, name=name, initializer=initializer, dtype=dtype, trainable=False, autocast=False
            )

        def stddev_initializer(shape, dtype=None):
            return keras.ops.sqrt(self.moving_variance_initializer(shape, dtype=dtype))

        self.gamma = parameter("gamma") if self.scale else None
        self.beta = parameter("beta") if self.center else None
        self.moving_mean = statistic("moving_mean", self.moving_mean_initializer)
        self.moving_variance = statistic("moving_variance", self.moving_variance_initializer)
        if self.renorm:
            self.moving_stddev = statistic("moving_stddev", stddev_initializer)
            self.renorm_mean = statistic("renorm_mean", self.moving_mean_initializer)
            self.renorm_stddev = statistic("renorm_stddev", stddev_initializer)
        if self.momentum is None:
            self.moving_count = statistic("moving_count", "zeros", dtype="int64")
        # Keras knows the shape of the output without a call, so nobody else would build it before the first one.
        if isinstance(self.activation, keras.layers.Layer) and not self.activation.built:
            self.activation.build(input_shape)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        """The shape of the input. Raises ValueError if `axis` does not fit it."""
        arguments.resolve_axis(self.axis, input_shape, self._axis_hint)
        return input_shape

    @property
    def _axis_hint(self) -> str:
        return arguments.hint_at_tensorflow_2(self.axis, self.virtual_batch_size)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        """Normalizes `inputs`; see the class."""
        x = arguments.parse_inputs(inputs, keras.backend.result_type(self.compute_dtype, "float32"))
        if mask is not None:
            mask = arguments.parse_mask(mask, x)
        if not (training and self.trainable):
            return self.activation(self._infer(x, mask))
        size = self.virtual_batch_size
        y, moved = by_groups(self._train, x, mask, size) if size else self._train(x, mask)
        self._store(moved)
        return y if self.activation in FUSED_ACTIVATIONS else self.activation(y)

    def _infer(self, x: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
        """Normalizes with the moving statistics, in operations that every converter knows and folds."""
        dtype = keras.backend.result_type(x.dtype, "float32")

        def vector(weight):
            return tf.reshape(tf.cast(weight, dtype), self._broadcast_shape)

        scale = tf.math.rsqrt(vector(self.moving_variance) + self.epsilon)
        if self.scale:
            scale *= vector(self.gamma)
        deviation = tf.cast(x, dtype) - vector(self.moving_mean)
        if mask is not None:
            deviation = tf.where(mask[..., tf.newaxis] | tf.math.is_finite(deviation), deviation, 0)
        y = deviation * scale
        if self.center:
            y += vector(self.beta)
        return tf.cast(y, self.compute_dtype)

    def _train(self, x: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, Moved]:
        """Normalizes with the moments of the batch, or of each group; with the moving statistics moved by them."""
        dtype = keras.backend.result_type(x.dtype, "float32")
        flat = self._view.collapse(x)
        flat_mask = None if mask is None else self._view.collapse_mask(mask, x)
        settings = Settings(
            axes=self._view.averaged,
            epsilon=self.epsilon,
            activation=self.activation if self.activation in FUSED_ACTIVATIONS else None,
            dtype=self.compute_dtype,
            statistics_dtype=dtype,
            on_cpu=strategy.on_cpu(),
        )
        parts = strategy.number_of_parts(x, self._view)
        # A call costs more than layers of vectors do, and TFLite knows no function that is not inlined.
        inlined = self.input_spec.ndim == 2 or not gradients_are_recorded()
        jit_compile = self.jit_compile
        if jit_compile == "auto":
            apart = {"moments_apart": self.renorm or self.synchronized, "sums_apart": self.synchronized}
            jit_compile = compiles(x, Program.of(flat, flat_mask, settings, parts, **apart), flat)

        def merge(moments):
            return merge_over_replicas(moments, self.sync_group_size) if self.synchronized else moments

        def statistics(x):
            run = {"axes": settings.axes, "dtype": dtype, "on_cpu": settings.on_cpu, "jit_compile": False}
            return merge(batch_moments(x, flat_mask, **run))

        def over_replicas(sums):
            return sum_over_replicas(sums, self.sync_group_size)

        ones = tf.ones_like(self.moving_mean)
        gamma = self._vector(self.gamma if self.scale else ones, dtype)
        beta = self._vector(self.beta if self.center else 0 * ones, dtype)
        if self.virtual_batch_size:
            # One of each for each group, so that each group has separate gradients, which add up here. A sum, because
            # its gradient needs nothing but shapes: XLA must know them, also in the gradient of a loop.
            nothing = tf.zeros_like(flat[(slice(None), *[slice(1)] * (len(flat.shape) - 1))], dtype)
            gamma, beta = gamma + nothing, beta + nothing
        # What depends on the moments before the batch is normalized keeps the two from being one program.
        moments = None
        if self.renorm or self.synchronized:
            run = {"settings": settings, "parts": parts, "inlined": inlined, "jit_compile": jit_compile}
            moments = merge(find_moments(tf.stop_gradient(flat), flat_mask, **run))
            if self.renorm:
                r, d = self._renorm_correction(moments)
                gamma, beta = gamma * r, beta + gamma * d
        y, moved = batch_normalize(
            flat,
            gamma,
            beta,
            flat_mask,
            moments,
            self._moving(),
            settings=settings,
            update=self._update(),
            parts=parts,
            inlined=inlined,
            jit_compile=jit_compile,
            statistics=statistics,
            over_replicas=over_replicas if self.synchronized else None,
        )
        y = tf.reshape(y, tf.shape(x))
        y.set_shape(x.shape)
        return y, moved

    def _vector(self, weight: Any, dtype: str) -> tf.Tensor:
        return self._view.vector(tf.cast(weight, dtype))

    def _renorm_correction(self, moments: Moments) -> tuple[tf.Tensor, tf.Tensor]:
        """The correction (r, d) of Ioffe 2017, Alg. 1: from statistics of the batch to those of training so far."""
        dtype = moments.center.dtype
        stddev = tf.sqrt(moments.variance() + self.epsilon)
        # Early in training a moving standard deviation may still be 0.
        moving_stddev = tf.maximum(self._vector(self.renorm_stddev, dtype), self.epsilon**0.5)
        r = stddev / moving_stddev
        d = ((moments.center - self._vector(self.renorm_mean, dtype)) + moments.offset) / moving_stddev
        bounds = self.renorm_clipping or {}
        r = tf.clip_by_value(r, bounds.get("rmin", r.dtype.min), bounds.get("rmax", r.dtype.max))
        d = tf.clip_by_value(d, -bounds.get("dmax", d.dtype.max), bounds.get("dmax", d.dtype.max))
        # A batch beyond the dtype gives beta here, too.
        known = tf.math.is_finite(stddev)
        r, d = tf.where(known, r, 1), tf.where(known, d, 0)
        # Constants to the derivative. They do not depend on `x` for a tape, but they do for the gradient of a branch or
        # loop, which follows every tensor back to its inputs.
        return tf.stop_gradient(r), tf.stop_gradient(d)

    def _update(self) -> Update:
        """How the moving statistics move."""
        return Update(
            momentum=self.momentum,
            renorm_momentum=self.renorm_momentum if self.renorm else None,
            epsilon=self.epsilon,
            unbiased=self.unbiased,
            groups=bool(self.virtual_batch_size),
        )

    def _moving(self) -> MovingStatistics:
        """The moving statistics as they are."""
        if self.renorm:
            names: tuple[str, ...] = ("moving_mean", "moving_stddev", "renorm_mean", "renorm_stddev")
        else:
            names = ("moving_mean", "moving_variance")
        batches = tf.convert_to_tensor(self.moving_count) if self.momentum is None else None
        return MovingStatistics(**{name: tf.convert_to_tensor(getattr(self, name)) for name in names}, batches=batches)

    def _store(self, moved: Moved) -> None:
        """Gives the moving statistics their new values, the same on all replicas.

        Replicas that normalize apart take the mean of theirs: so none drifts from the others, and what is saved does
        not depend on which of them saves.
        """
        batches = moved.counted
        new = {name: value for name, value in moved.statistics._asdict().items() if value is not None}
        if not self.synchronized or self.sync_group_size:
            *values, batches = mean_over_replicas([*new.values(), batches], batches)
            new = dict(zip(new, values, strict=True))
        if self.momentum is None:
            self.moving_count.assign_add(tf.cast(tf.round(batches), "int64"))
        if self.renorm:
            variance = tf.nn.relu(tf.square(new["moving_stddev"]) - self.epsilon)
            new["moving_variance"] = tf.where(batches > 0, variance, tf.cast(self.moving_variance, variance.dtype))
        for name, value in new.items():
            weight = getattr(self, name)
            weight.assign(tf.cast(value, weight.dtype))

    def get_config(self) -> dict[str, Any]:
        """Keras's configuration, and the arguments that Keras lacks where they are not at their defaults.

        So a layer that uses what Keras has can be made by Keras from its configuration, on a machine without kerasbn.
        """
        config = super().get_config()
        config.update(renorm=self.renorm, renorm_clipping=self.renorm_clipping, renorm_momentum=self.renorm_momentum)
        if self.unbiased:
            config["unbiased"] = self.unbiased
        if self.activation is not keras.activations.linear:
            config["activation"] = keras.activations.serialize(self.activation)
        if self.sync_group_size is not None:
            config["sync_group_size"] = self.sync_group_size
        if self.virtual_batch_size is not None:
            config["virtual_batch_size"] = self.virtual_batch_size
        if self.jit_compile != "auto":
            config["jit_compile"] = self.jit_compile
        return config

    def __repr__(self) -> str:
        """Keras's, with the name by which Python finds the class; see below."""
        return f"<{type(self).__qualname__.rpartition('.')[2]} name={self.name}, built={self.built}>"


# Keras names the groups of a weights file, and unnamed layers, after the class. With the name of its base class the
# layer reads and writes the files of a model with Keras's layer, and tools that look for the layer by name find it.
BatchNorm.__name__ = keras.layers.BatchNormalization.__name__
