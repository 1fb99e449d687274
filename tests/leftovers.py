"""What TensorFlow keeps after a test, and how to let go of it."""

from tensorflow.python.framework import ops


def forget_gradients() -> None:
    """Lets go of all graphs in which `tf.custom_gradient` was called, with every function and variable in them.

    TensorFlow registers a gradient for each call, by a new name, and takes none out: a graph of a training step is
    never given back. The gradient of a graph that was built before can no longer be taken after this.
    """
    # No public function removes gradients.
    registered = ops.gradient_registry._registry
    for name in [name for name in registered if name.startswith("CustomGradient-")]:
        del registered[name]
