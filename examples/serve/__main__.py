"""`python -m examples.serve`: trains, recalibrates, folds and exports a network, and runs it in each format."""

import argparse
import logging
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from examples import command
from examples.options import add_dataset, add_out, command_parser, positive

DESCRIPTION = (
    "Trains a small network with batch normalization, estimates its population statistics, folds them into the "
    "convolutions, and exports it. Prints accuracy and latency of each stage; the files stay in --out."
)
STAGES = 7


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser("serve", DESCRIPTION)
    add_dataset(parser, ("digits", "mnist", "cifar10"))
    add = parser.add_argument
    add("--epochs", type=positive(int), default=3, help="of training (default: %(default)s)")
    add("--seed", type=int, default=0, help="of weights and batches (default: %(default)s)")
    add("--calls", type=positive(int), default=200, help="that a latency is the median of (default: %(default)s)")
    add_out(parser, "runs/serve/DATASET")
    options = parser.parse_args(arguments)
    out = options.out or Path("runs/serve") / options.dataset
    return command.run(lambda: _run(options, out), out, goes_on=False)


def _run(options: argparse.Namespace, out: Path) -> None:
    import keras
    import tensorflow as tf

    import kerasbn
    from benchmarks.progress import Progress
    from examples.accelerate.data import load
    from examples.serve import formats
    from examples.serve.network import train
    from kerasbn.table import table

    images = load(options.dataset, options.data_dir, options.download, "examples.serve")
    tf.get_logger().setLevel(logging.ERROR)  # the converters tell much of themselves
    x, y = images.x_test, images.y_test
    rows = [("stage", "accuracy", "one image, ms", "largest difference")]
    reference = None

    def measure(stage, serve):
        """Accuracy, latency, and how far the logits are from those of Keras with population statistics."""
        logits = serve(x)
        times = []
        for call in range(options.calls):
            image = x[call % len(x)][None]
            start = time.perf_counter()
            serve(image)
            times.append(time.perf_counter() - start)
        off = "" if reference is None else f"{abs(logits - reference).max():.1e}"
        milliseconds = sorted(times)[len(times) // 2] * 1e3
        rows.append((stage, f"{(logits.argmax(-1) == y).mean():.2%}", f"{milliseconds:.2f}", off))
        progress.add(1, f"{stage}: {rows[-1][1]}, {rows[-1][2]} ms", keep=True)
        return logits

    def show(epoch, logs):
        progress.add(1, f"epoch {epoch + 1} of {options.epochs}, accuracy={logs['accuracy']:.4f}")

    with Progress("serving", total=options.epochs + STAGES) as progress:
        model = train(images, options.epochs, options.seed, [keras.callbacks.LambdaCallback(on_epoch_end=show)])
        measure("trained, moving averages", formats.in_keras(model))
        kerasbn.recalibrate(model, images.x_train)
        reference = measure("recalibrated", formats.in_keras(model))
        changes: list = []
        folded = kerasbn.fold(model, changes=changes)
        measure("folded", formats.in_keras(folded))
        measure("SavedModel", formats.saved_model(folded, out / "saved_model"))
        measure("TFLite, float32", formats.tflite(out / "saved_model", out / "float32.tflite"))
        measure("TFLite, int8", formats.tflite(out / "saved_model", out / "int8.tflite", images.x_train[:200]))
        try:
            measure("ONNX", formats.onnx(folded, out / "model.onnx"))
        except formats.NotInstalled as missing:
            progress.say(f"ONNX: left out, as it needs {missing}")
    print(f"\n{table(rows)}\n\n{chr(10).join(map(str, changes))}\n\nFiles: {out}")


if __name__ == "__main__":
    sys.exit(main())
