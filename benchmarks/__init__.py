"""Side-by-side measurements: `python -m benchmarks` for all, `python -m benchmarks.<name>` for one. None is a test."""

import os

# TensorFlow, which every benchmark imports, reads it then: its notes on the machine say nothing about the results.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
