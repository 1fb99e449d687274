"""What the oracle says of a whole step of a layer, with each of its settings put together from `tests.reference`."""

from typing import NamedTuple

import numpy as np

from tests import reference


class Step(NamedTuple):
    """Results of a training step in float64, each with the size of what it was added up from.

    Rounding errors are in proportion to these sizes and not to the results, which may have cancelled.

    Attributes:
        dy: The derivative that was sent back: that of the case, but 0 where the activation has a kink.
        values: "y"; "dx", "dgamma" and "dbeta"; and each weight after the step, by its name.
        sizes: As `values`.
    """

    dy: np.ndarray
    values: dict[str, np.ndarray]
    sizes: dict[str, np.ndarray]


#: How near to a kink, in parts of the size of what comes to it, the derivative is left to rounding.
NEAR = 1e-3
KINKS = {"relu": (0,), "leaky_relu": (0,), "relu6": (0, 6)}


@np.errstate(all="ignore")  # what is not finite in an input
def training_step(case, layer) -> Step:
    """The step of `layer` on a `tests.cases.Case`, given the weights before it."""
    before = {weight.name: case.vector(weight) for weight in layer.weights}
    after, gamma, beta = dict(before), before.get("gamma", np.ones(1)), before.get("beta", np.zeros(1))
    activation, slope = reference.ACTIVATIONS[case.settings.get("activation")]
    whole = np.asarray(case.x, "float64")
    mask = None if case.mask is None else np.broadcast_to(case.mask, whole.shape[:-1])[..., None]
    sent = np.array(case.dy, "float64")
    rows: dict[str, list] = {"y": [], "dx": []}
    row_sizes: dict[str, list] = {"y": [], "dx": []}
    sums = {"dgamma": 0 * after["moving_mean"], "dbeta": 0 * after["moving_mean"]}
    sizes = dict(sums) | {name: np.abs(value) for name, value in before.items()}
    size = layer.virtual_batch_size or max(len(whole), 1)
    for group in (slice(start, start + size) for start in range(0, max(len(whole), 1), size)):
        x, dy, group_mask = whole[group], sent[group], None if mask is None else mask[group]
        spoiled = np.zeros_like(x, bool) if mask is None else ~(group_mask | np.isfinite(x))
        found = reference.algorithm_1(np.where(spoiled, 0, x), gamma, beta, layer.epsilon, case.axes, group_mask)
        x = np.where(spoiled, found.mu, x)  # counts as the mean
        n = reference.algorithm_1(x, gamma, beta, layer.epsilon, case.axes, group_mask)
        r, d = np.ones(1), np.zeros(1)
        if layer.renorm:
            statistics = before["renorm_mean"], before["renorm_stddev"]
            r, d = reference.renorm_correction(n.mu, n.sigma2, *statistics, layer.epsilon, **layer.renorm_clipping)
        z = gamma * (n.x_hat * r + d) + beta
        normalized = (1 + np.abs(n.x_hat)) * r + np.abs(d)
        z_size = np.abs(gamma) * normalized + np.abs(beta)
        for kink in KINKS.get(case.settings.get("activation"), ()):
            dy[np.abs(z - kink) < NEAR * (z_size + kink)] = 0
        dz = dy * slope(z)
        dx, dgamma, dbeta = reference.backward(x, gamma * r, dz, layer.epsilon, case.axes, group_mask)
        rows["y"].append(activation(z))
        rows["dx"].append(np.where(spoiled, 0, dx))
        row_sizes["y"].append(z_size + np.abs(activation(z)))
        sent_back, counted_size = np.abs(dy), np.maximum(n.m, 1)
        through_mean = sent_back.sum(case.axes, keepdims=True) / counted_size
        through_stddev = (sent_back * (1 + np.abs(n.x_hat))).sum(case.axes, keepdims=True) / counted_size
        shared = through_mean + (1 + np.abs(n.x_hat)) * through_stddev
        row_sizes["dx"].append(np.abs(gamma) * r / np.sqrt(n.sigma2 + layer.epsilon) * (sent_back + shared))
        sums["dgamma"] = sums["dgamma"] + r * dgamma + d * dbeta
        sums["dbeta"] = sums["dbeta"] + dbeta
        sizes["dgamma"] = sizes["dgamma"] + (sent_back * normalized).sum(case.axes, keepdims=True)
        sizes["dbeta"] = sizes["dbeta"] + sent_back.sum(case.axes, keepdims=True)

        counted = (n.m > 0) & np.isfinite(n.mu) & np.isfinite(n.sigma2)
        momentum = layer.momentum
        if momentum is None:
            momentum = after["moving_count"] / (after["moving_count"] + 1)
            after["moving_count"] = after["moving_count"] + counted

        def move(name, value, momentum, size, counted=counted):
            after[name] = np.where(counted, momentum * after[name] + (1 - momentum) * value, after[name])
            sizes[name] = np.where(counted, sizes[name] + size, sizes[name])

        variance = reference.algorithm_2_variance(n.sigma2, n.m) if layer.unbiased else n.sigma2
        # Where all values are equal, the mean is rounded, and the variance has the square of that.
        variance_size = variance + (1e-7 * n.mu) ** 2
        move("moving_mean", n.mu, momentum, np.abs(n.mu) + np.sqrt(n.sigma2))
        if layer.renorm:
            stddev = np.sqrt(variance + layer.epsilon)
            move("moving_stddev", stddev, momentum, stddev)
            square = after["moving_stddev"] ** 2
            after["moving_variance"] = np.where(
                counted, np.maximum(square - layer.epsilon, 0), after["moving_variance"]
            )
            sizes["moving_variance"] = sizes["moving_variance"] + square
            move("renorm_mean", n.mu, layer.renorm_momentum, np.abs(n.mu) + np.sqrt(n.sigma2))
            stddev = np.sqrt(n.sigma2 + layer.epsilon)
            move("renorm_stddev", stddev, layer.renorm_momentum, stddev)
        else:
            move("moving_variance", variance, momentum, variance_size)
        sent[group] = dy
    values = {name: np.concatenate(parts) for name, parts in rows.items()} | sums | after
    return Step(sent, values, sizes | {name: np.concatenate(parts) for name, parts in row_sizes.items()})


@np.errstate(all="ignore")
def inference(case, layer) -> tuple[np.ndarray, np.ndarray]:
    """What `layer` gives for a `tests.cases.Case` with its moving statistics, and the size of what that is a sum of."""
    w = {weight.name: case.vector(weight) for weight in layer.weights}
    gamma, beta, mean = w.get("gamma", np.ones(1)), w.get("beta", np.zeros(1)), w["moving_mean"]
    x = np.asarray(case.x, "float64")
    if case.mask is not None:
        spoiled = ~(np.broadcast_to(case.mask, x.shape[:-1])[..., None] | np.isfinite(x))
        x = np.where(spoiled, mean, x)
    activation, _ = reference.ACTIVATIONS[case.settings.get("activation")]
    z = reference.inference(x - mean, gamma, beta, 0.0, w["moving_variance"], layer.epsilon)
    y = activation(z)
    return y, np.abs(z - beta) + np.abs(beta) + np.abs(y)
