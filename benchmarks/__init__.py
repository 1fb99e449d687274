"""Side-by-side measurements: `python -m benchmarks.<name>`. Each prints a table and writes JSON; none is a test."""
