"""A small convolutional network with batch normalization, trained on images."""

import keras

import kerasbn
from examples.accelerate.data import Images

BATCH_SIZE = 32


def train(images: Images, epochs: int, seed: int, callbacks: list[keras.callbacks.Callback]) -> keras.Model:
    """Builds and trains it."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input(images.x_train.shape[1:])])
    for index, filters in enumerate((16, 32, 64)):
        model.add(keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv_{index}"))
        model.add(kerasbn.BatchNorm(name=f"conv_{index}_bn"))
        model.add(keras.layers.ReLU(name=f"conv_{index}_relu"))
        if index < 2:
            model.add(keras.layers.MaxPooling2D(name=f"pool_{index}"))
    model.add(keras.layers.GlobalAveragePooling2D(name="average"))
    model.add(keras.layers.Dense(10, name="logits"))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"])
    model.fit(images.x_train, images.y_train, BATCH_SIZE, epochs=epochs, verbose=0, callbacks=callbacks)
    return model
