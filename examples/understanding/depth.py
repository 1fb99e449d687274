"""How deep a ResNet may be."""

import argparse


def depth(text: str) -> int:
    """A depth for argparse."""
    value = int(text)
    if value < 8 or (value - 2) % 6:
        raise argparse.ArgumentTypeError(f"must be 6 n + 2: 8, 14, 20, ..., got {text}")
    return value
