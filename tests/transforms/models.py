"""The registry of models: every kind that a transform must know. Each test of all transforms runs over all of them."""

import json

import keras
import numpy as np

from kerasbn import BatchNorm

L = keras.layers
L2 = keras.regularizers.L2


def swish_of_our_own(x):
    return x * keras.ops.sigmoid(2.0 * x)


class Scale(keras.layers.Layer):
    """A custom layer that nobody registered."""

    def __init__(self, start=1.0, **kwargs):
        super().__init__(**kwargs)
        self.start = start

    def build(self, shape):
        self.scale = self.add_weight(
            name="scale", shape=(shape[-1],), initializer=keras.initializers.Constant(self.start)
        )

    def call(self, x):
        return x * self.scale

    def get_config(self):
        return super().get_config() | {"start": self.start}


class Block(keras.layers.Layer):
    """A custom layer with layers in it, one of them frozen."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = L.Dense(units, activation="relu", name="first")
        self.second = [L.Dense(units, name="second"), L.BatchNormalization(name="norm")]
        self.second[1].trainable = False

    def build(self, shape):
        self.first.build(shape)
        for layer in self.second:
            layer.build((*shape[:-1], self.units))

    def call(self, x):
        x = self.first(x)
        for layer in self.second:
            x = layer(x)
        return x

    def get_config(self):
        return super().get_config() | {"units": self.units}


class Trainer(keras.Model):
    """A functional model of a class of its own, as for a training step of its own."""

    def __init__(self, *args, note="", **kwargs):
        super().__init__(*args, **kwargs)
        self.note = note

    def train_step(self, data):
        return super().train_step(data)


class Python(keras.Model):
    """A model that says what it computes in Python code only."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = L.Dense(units, activation="relu", name="hidden")

    def call(self, x):
        return self.hidden(x)

    def get_config(self):
        return super().get_config() | {"units": self.units}


def sequential():
    return keras.Sequential(
        [
            keras.Input((6,), name="features"),
            L.Dense(5, activation="relu", kernel_regularizer=L2(0.01), name="hidden"),
            L.Dropout(0.5, name="dropout"),
            L.Dense(3, name="logits"),
        ],
        name="sequential_model",
    )


def images():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            L.RandomBrightness(0.2, value_range=(0, 1), name="brightness"),
            L.Conv2D(4, 3, padding="same", kernel_regularizer=L2(0.01), name="conv"),
            L.Activation("relu", name="relu"),
            L.DepthwiseConv2D(3, activation="relu6", name="depthwise"),
            L.SeparableConv2D(4, 3, activation=swish_of_our_own, name="separable"),
            L.Conv2DTranspose(3, 3, activation="tanh", name="transposed"),
            L.GlobalAveragePooling2D(),
            L.Dense(2, activation="softmax", name="probabilities"),
        ]
    )


def residual():
    x = inputs = keras.Input((8, 8, 4), name="image")
    for n in (1, 2):
        y = L.Conv2D(4, 3, padding="same", activation="relu", name=f"conv{n}a")(x)
        y = L.Conv2D(4, 3, padding="same", name=f"conv{n}b")(y)
        x = L.ReLU(name=f"relu{n}")(L.Add(name=f"add{n}")([x, y]) if n == 1 else x + y)
    return keras.Model(inputs, L.Dense(2, name="logits")(L.GlobalAveragePooling2D()(x)))


def shared():
    """Layers that are called twice; one in two models."""
    inputs = [keras.Input((6,), name=name) for name in ("left", "right")]
    tower = L.Dense(4, activation="relu", kernel_regularizer=L2(0.02), name="tower")
    relu = L.ReLU(name="relu")
    tied = L.Dense(4, name="tied")
    encoder_inputs = keras.Input((4,), name="code")
    encoder = keras.Model(encoder_inputs, relu(tied(encoder_inputs)), name="encoder")
    towers = [relu(tied(encoder(tower(x)))) for x in inputs]
    return keras.Model(inputs, L.Dense(1, name="distance")(L.Subtract(name="difference")(towers)))


def nested():
    backbone_inputs = keras.Input((6,), name="backbone_input")
    hidden = L.Dense(5, activation="relu", name="hidden")(backbone_inputs)
    backbone = keras.Model(backbone_inputs, [L.Dense(4, name="linear")(hidden), hidden], name="backbone")
    head = keras.Sequential([keras.Input((4,)), L.Dense(4, name="hidden"), L.ReLU(name="relu")], name="head")
    inputs = keras.Input((6,), name="x")
    linear, hidden = backbone(inputs)
    x = head(L.Activation("relu", name="relu")(linear))
    x = L.Concatenate(name="both")([x, hidden])
    return keras.Model(inputs, L.Dense(2, name="logits")(x), name="outer")


def several_inputs_and_outputs():
    inputs = {"a": keras.Input((6,), name="a"), "b": keras.Input((5, 3), name="b")}
    a = L.Dense(4, activation="relu", name="dense_a")(inputs["a"])
    b = L.Conv1D(4, 2, activation="elu", name="conv_b")(inputs["b"])
    b = b[:, 0] + keras.ops.mean(b, axis=1)
    x = keras.ops.relu(L.Dense(4, name="joint")(L.Concatenate()([a, b])))
    outputs = {"class": L.Dense(3, activation="softmax", name="class")(x), "value": L.Dense(1, name="value")(x)}
    return keras.Model(inputs, outputs, name="two_by_two")


def masked_sequence():
    inputs = keras.Input((7,), dtype="int32", name="words")
    x = L.Embedding(11, 4, mask_zero=True, embeddings_regularizer=L2(0.03), name="words_embedded")(inputs)
    x = L.TimeDistributed(L.Dense(5, activation="relu", name="inner"), name="each")(x)
    x = L.Dense(4, activation="relu", name="dense")(x)
    x = L.Bidirectional(L.LSTM(3, kernel_regularizer="l2", recurrent_regularizer="l1"), name="both_ways")(x)
    return keras.Model(inputs, L.Dense(1, activation="sigmoid", name="probability")(x))


def custom():
    rows = keras.Input((6,))
    x = Scale(0.5, name="scale")(rows)
    x = L.Dense(4, activation=swish_of_our_own, name="custom_activation")(x)
    x = L.Dense(4, activation=L.LeakyReLU(0.3), name="layer_as_activation")(x)
    x = Block(4, name="block")(x)
    x = L.Lambda(lambda x: np.pi * x, name="times_pi")(x)
    return Trainer(rows, L.Dense(2, name="logits")(x), name="trainer")


def autoencoder():
    """Models within a model that are called several times and give its outputs; structures not in sorted order."""
    inner = {"y": keras.Input((3,), name="y"), "x": keras.Input((4,), name="x")}
    codes = {"second": L.Dense(3, name="second")(inner["y"]), "first": L.Dense(2, "relu", name="first")(inner["x"])}
    encoder = keras.Model(inner, codes, name="encoder")
    code = keras.Input((2,), name="code")
    decoder = keras.Model(
        code, [L.Dense(4, name="decoded")(L.Dense(3, "relu", name="hidden")(code)), 2 * code], name="decoder"
    )
    inputs = {"image": keras.Input((4,), name="image"), "aside": keras.Input((3,), name="aside")}
    coded = encoder({"y": inputs["aside"], "x": inputs["image"]})
    decoded = decoder(coded["first"])
    again = decoder(encoder({"y": coded["second"], "x": decoded[0]})["first"])
    return keras.Model(inputs, {"image": again[0], "code": decoded[1], "aside": coded["second"]})


def frozen():
    model = nested()
    model.get_layer("head").trainable = False
    model.get_layer("backbone").trainable = False
    model.get_layer("backbone").get_layer("linear").trainable = True
    return model


def mixed_precision():
    layers = [
        L.Conv2D(4, 3, activation="relu", dtype="mixed_bfloat16", name="half"),
        L.Conv2D(4, 3, dtype="mixed_bfloat16", name="linear"),
        L.ReLU(dtype="mixed_bfloat16", name="relu"),
        L.Flatten(dtype="mixed_bfloat16"),
        L.Dense(2, dtype="float32", name="logits"),
    ]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers])


def normalized_already():
    x = inputs = keras.Input((6,))
    x = L.ReLU()(L.BatchNormalization(name="theirs")(L.Dense(4, use_bias=False, name="before")(x)))
    x = BatchNorm(name="ours", momentum=0.9)(L.Dense(4, activation="relu", name="after")(x))
    return keras.Model(inputs, L.Dense(2, name="logits")(x))


def frames():
    """A CNN over the frames of a clip, over those of another, and over a picture: one CNN, in two wrappers."""
    x = picture = keras.Input((6, 6, 2), name="cnn_input")
    x = L.ReLU(name="relu")(L.BatchNormalization(name="norm")(L.Conv2D(3, 3, use_bias=False, name="conv")(x)))
    x = L.Lambda(lambda x: np.pi * x, name="times_pi")(keras.ops.tanh(x) + 1.0)
    x = L.Conv2D(4, 3, activation=swish_of_our_own, kernel_regularizer=L2(0.01), name="second")(x)
    cnn = keras.Model(picture, L.GlobalAveragePooling2D(name="pool")(x), name="cnn")
    cnn.get_layer("norm").trainable = False
    inputs = {name: keras.Input((n, 6, 6, 2), name=name) for name, n in (("clip", 3), ("preview", 2))}
    inputs["picture"] = keras.Input((6, 6, 2), name="picture")
    clips = [L.TimeDistributed(cnn, name=f"each_{name}")(inputs[name]) for name in ("clip", "preview")]
    clips = [L.LSTM(3, name=f"lstm_{n}")(clip) for n, clip in enumerate(clips)]
    x = L.Concatenate(name="all")([*clips, cnn(inputs["picture"])])
    return keras.Model(inputs, L.Dense(2, name="logits")(x), name="frames")


def without_input_shape():
    return keras.Sequential([L.Dense(4, activation="relu", name="hidden"), L.Dense(2, name="logits")])


MODELS = [
    sequential,
    images,
    residual,
    shared,
    nested,
    autoencoder,
    several_inputs_and_outputs,
    masked_sequence,
    custom,
    frozen,
    mixed_precision,
    normalized_already,
    frames,
]


def inputs_of(model: keras.Model, batch: int = 4):
    """A batch of random inputs in the structure that the model takes."""
    random = np.random.default_rng(0)

    def values(x):
        shape = (batch, *x.shape[1:])
        return random.integers(0, 5, shape) if "int" in x.dtype else random.random(shape).astype("float32")

    return keras.tree.map_structure(values, model.input if hasattr(model, "operations") else model.inputs[0])


def with_random_weights(model: keras.Model) -> keras.Model:
    """`model` with weights that no initializer gives, as after training."""
    random = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(random.random(weight.shape) + 0.1)
    return model


def all_layers(model: keras.Model, prefix: str = "") -> dict[str, keras.layers.Layer]:
    """Every layer of a functional or Sequential model and of those within, by its names."""
    found = {}
    for layer in model.layers:
        found[prefix + layer.name] = layer
        if isinstance(layer, L.TimeDistributed) and hasattr(layer.layer, "operations"):
            found |= all_layers(layer.layer, f"{prefix}{layer.name}/{layer.layer.name}/")
        if isinstance(layer, keras.Sequential) or hasattr(layer, "operations"):
            found |= all_layers(layer, f"{prefix}{layer.name}/")
    return found


def snapshot(model):
    """All that a transform could touch in a model."""
    config = json.dumps(model.get_config(), default=str)
    calls = {path: layer.output is not None for path, layer in all_layers(model).items() if hasattr(layer, "output")}
    return config, model.get_weights(), [v.numpy() for v in model.variables], calls
