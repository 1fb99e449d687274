"""What tests of `kerasbn.kernels.tiered` share: when the compiler has done what it was asked for."""

import time

from kerasbn.kernels import tiered

#: Uses of a size after which compiled kernels take over, with the fixture `small_and_soon`.
UNCOMPILED_STEPS = 3


def wait_until_compiled(seconds=60.0):
    """Waits until all that is counted is ready, or could not be compiled."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if all(_is_done(device) for device in tiered._devices()):
            return
        time.sleep(0.02)
    raise AssertionError(f"not compiled within {seconds} seconds")


def _is_done(device):
    keys = set(tiered._compiler.counts(device)[0].tolist())
    tried = tiered._compiler._tried
    return all(-key in keys or tried.get((*tiered._program_and_rows(key), device)) is False for key in keys if key > 0)
