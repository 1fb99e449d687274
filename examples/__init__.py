"""The papers' experiments. One folder an experiment; each runs with `python -m examples.<folder>` from the checkout."""
