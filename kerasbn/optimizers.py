"""What must be known of an optimizer to change its learning rate for a while."""

from typing import Any

import keras


def stepping(optimizer: Any) -> list[Any]:
    """The optimizers that make the steps: those inside a `LossScaleOptimizer` or a `MultiOptimizer`, or it itself."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return stepping(optimizer.inner_optimizer)
    several = getattr(optimizer, "optimizers", None)
    return [part for each in several for part in stepping(each)] if several else [optimizer]


def steps_done(optimizer: Any) -> Any:
    """The variable that counts batches, as a schedule sees it; `iterations` counts fewer if gradients accumulate."""
    return next(v for v in optimizer.variables if v.name == "iteration")


def schedule_of(optimizer: Any) -> keras.optimizers.schedules.LearningRateSchedule | None:
    """An equal of the schedule that is the learning rate of `optimizer`, `None` if the rate is a number.

    Keras gives out the value of a schedule, not the schedule, so it is read from the configuration.

    Raises:
        TypeError: If the rate is a schedule or a function that cannot be made again from the configuration.
    """
    if isinstance(optimizer.learning_rate, keras.Variable):
        return None
    try:
        config = optimizer.get_config()["learning_rate"]
        schedule = keras.optimizers.schedules.deserialize(config)
    except (TypeError, ValueError, AttributeError, ImportError, NotImplementedError) as error:
        raise _not_readable(optimizer) from error
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        raise _not_readable(optimizer)
    return schedule


def set_schedule(optimizer: Any, schedule: keras.optimizers.schedules.LearningRateSchedule) -> None:
    """Makes `schedule` the learning rate of `optimizer`, which has a schedule.

    As the assignment of `optimizer.learning_rate`, which first evaluates the old schedule, for milliseconds.
    """
    type(optimizer).learning_rate.fset(optimizer, schedule)


def _not_readable(optimizer: Any) -> TypeError:
    return TypeError(
        "The learning rate of the optimizer must be a number or a LearningRateSchedule that can be serialized. "
        f"Received: {optimizer.name} with a rate that cannot be read back from its configuration. "
        "Decorate your schedule's class with @keras.saving.register_keras_serializable() and give it a get_config, "
        "or pass kerasbn.schedules.Accelerated(schedule) to the optimizer."
    )
