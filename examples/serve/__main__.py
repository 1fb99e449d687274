"""`python -m examples.serve`: trains, recalibrates, folds and exports a network, and runs it in each format."""

import argparse
import logging
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from examples.mnist_sigmoid.__main__ import positive


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.serve",
        description=(
            "Trains a small network with batch normalization, estimates its population statistics, folds them into the "
            "convolutions, and exports it. Prints accuracy and latency of each stage; the files stay in --out."
        ),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--dataset", choices=("digits", "mnist", "cifar10"), default="digits", help="what to train on")
    parser.add_argument(
        "--data-dir", type=Path, help="folder of TensorFlow Datasets (default: theirs)", default=argparse.SUPPRESS
    )
    parser.add_argument("--download", action="store_true", help="download and prepare the data set if it is missing")
    parser.add_argument("--epochs", type=positive(int), default=3, help="of training")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches")
    parser.add_argument("--calls", type=positive(int), default=200, help="that a latency is the median of")
    parser.add_argument(
        "--out", type=Path, help="where files go (default: runs/serve/DATASET)", default=argparse.SUPPRESS
    )
    options = parser.parse_args(arguments)
    out = getattr(options, "out", Path("runs/serve") / options.dataset)
    try:
        import tensorflow as tf
        from tqdm.keras import TqdmCallback

        import kerasbn
        from examples.accelerate.data import DatasetMissing, load
        from examples.serve import formats
        from examples.serve.network import train
        from kerasbn.table import table
    except ModuleNotFoundError as error:
        print(f'This example needs {error.name}, which is not installed: pip install -e ".[examples]"', file=sys.stderr)
        return 2
    try:
        images = load(options.dataset, getattr(options, "data_dir", None), options.download, "examples.serve")
    except DatasetMissing as error:
        print(error, file=sys.stderr)
        return 2
    tf.get_logger().setLevel(logging.ERROR)  # the converters tell much of themselves
    out.mkdir(parents=True, exist_ok=True)
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
        print(f"{stage}: {rows[-1][1]}, {rows[-1][2]} ms", flush=True)
        return logits

    bar = TqdmCallback(verbose=0, ascii=True)
    model = train(images, options.epochs, options.seed, [bar])
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
        print(f"ONNX: left out, as it needs {missing}")
    print(f"\n{table(rows)}\n\n{chr(10).join(map(str, changes))}\n\nFiles: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
