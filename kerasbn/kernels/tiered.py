"""Tiered compilation: a batch size is computed by TensorFlow's operations first, by XLA once that pays and is ready.

A step never waits for the compiler. The graph counts how often a layer used a batch size. A thread looks at the counts,
compiles in the background what is used often, and writes into the graph's table that it is ready; from a fixed use on,
the graph takes the compiled way if it is. Both sides meet in one table of TensorFlow's on each device, found by its
name: a graph that is exported holds no variable and no Python for it, and where nobody compiles, nothing is ever ready.

When a size pays is the question of renting or buying: it is compiled when its uncompiled uses have cost about as much
as compiling will. So a size that comes once is never compiled, and nobody waits more than twice what was needed. The
use at which the ways change does not depend on how fast the compiler was, as long as it had finished by then: two runs
with the same seeds agree to the last bit. Where this must be certain (`tf.config.experimental.enable_op_determinism`)
nothing is compiled.
"""

import atexit
import math
import threading
import time
import warnings
from collections.abc import Callable, Hashable
from pathlib import Path

import numpy as np
import tensorflow as tf

from kerasbn.kernels.shared_trace import shared_trace

#: Smaller batches are not compiled: up to 3 MB the compiled kernels were no faster on either kind of machine.
MIN_BYTES = 4 * 2**20

#: What compiling costs, in bytes of a batch that are normalized uncompiled, forward and backward, in the time that
#: compiled kernels would save: 1.2 s, and 0.6 ms a MB with AVX-512, 2.3 s and 1.5 ms with AVX2.
BREAK_EVEN = 2_000_000_000

#: However large a batch is, compiled kernels take over after no fewer uses than this.
MIN_USES = 8

#: The share of the uses after which compiling begins, in the background.
AHEAD = 0.25

#: Of one process: each leaves some 45 memory maps and 1.3 MB for good, and Linux allows 65,530 maps.
MAX_PROGRAMS = 128

#: The share of the maps that the system allows at which nothing more is compiled, whoever made them.
MAX_MAPS = 0.5

#: Seconds between two looks at the counts: while they change, and otherwise.
BUSY, IDLE = 0.1, 1.0

#: What is counted: `program` of `layer` for so many `rows`, in one positive integer.
_ROW_BITS, _LAYER_BITS, _PROGRAM_BITS = 34, 19, 10


def takes_over(x: tf.Tensor, program: Hashable, compile_for: Callable[[int], None]) -> bool | tf.Tensor:
    """Counts a use of the size of `x` and says whether compiled kernels compute it: a boolean tensor.

    Args:
        x: A collapsed batch in a graph, of which only the size of the first axis may be unknown.
        program: What is compiled, apart from that size. What is equal is compiled once.
        compile_for: Compiles it for a size of the first axis.

    Returns:
        Scalar boolean tensor; or `False`, where more programs are registered than can be counted.
    """
    row_bytes = x.dtype.size * math.prod(x.shape[1:])
    number = _compiler.register(program, row_bytes, compile_for)
    if number is None:
        return False
    rows = tf.shape(x, "int64")[0]
    # Not the constants themselves: TensorFlow would make a function of its own for each layer.
    fixed = {"table": _compiler.table, "min_bytes": MIN_BYTES, "min_uses": MIN_USES, "break_even": BREAK_EVEN}
    return _count_use(rows + number * 2**_ROW_BITS, rows * row_bytes, **fixed)


def wait_until_compiled(seconds: float = 60.0) -> None:
    """Waits until all that was counted so far is compiled, or could not be. For tests and benchmarks.

    Raises:
        TimeoutError: It took longer than `seconds`.
    """
    end = time.monotonic() + seconds
    while not _compiler.is_done():
        if time.monotonic() > end:
            raise TimeoutError(f"Not compiled within {seconds} seconds.")
        time.sleep(0.02)


@shared_trace
def _count_use(
    key: tf.Tensor, size: tf.Tensor, *, table: str, min_bytes: int, min_uses: int, break_even: int
) -> tf.Tensor:
    handle = _table(table)
    large = size >= min_bytes
    # Small sizes share the key 0, which nobody looks at.
    key = tf.where(large, key, 0)
    nothing = tf.constant(0, "int64")
    found = tf.raw_ops.LookupTableFindV2(table_handle=handle, keys=tf.stack([key, -key]), default_value=nothing)
    uses, ready = tf.unstack(found, 2)
    with tf.control_dependencies([found]):
        tf.raw_ops.LookupTableInsertV2(table_handle=handle, keys=[key], values=[uses + 1])
    return large & (ready > 0) & (uses >= min_uses) & (uses * size >= break_even)


def _table(name: str) -> tf.Tensor:
    """The table of the device: uses by key, and a 1 under each negative key that is ready."""
    return tf.raw_ops.MutableHashTableV2(key_dtype="int64", value_dtype="int64", shared_name=name)


class _Program:
    """What is compiled for each number of rows."""

    def __init__(self, row_bytes: int, compile_for: Callable[[int], None]) -> None:
        self.row_bytes, self.compile_for = row_bytes, compile_for


class _Compiler:
    """The thread that compiles, and what it knows. The thread begins with the first layer that may need it."""

    def __init__(self, table: str = "kerasbn/tiered") -> None:
        #: The name of the tables, one on each device.
        self.table = table
        self._lock = threading.Lock()
        self._numbers: dict[Hashable, int] = {}
        self._programs: list[_Program] = []
        self._layers = 0
        #: Program, rows and device, with whether it is ready; what failed is not tried again.
        self._tried: dict[tuple[int, int, str], bool] = {}
        self._is_full = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def register(self, program: Hashable, row_bytes: int, compile_for: Callable[[int], None]) -> int | None:
        """A number for a layer that uses a program; `None` for a program beyond those that a key can tell apart."""
        with self._lock:
            if program not in self._numbers:
                if len(self._programs) == 2**_PROGRAM_BITS:
                    return None
                self._numbers[program] = len(self._programs)
                self._programs.append(_Program(row_bytes, compile_for))
            number = self._numbers[program]
            self._layers = (self._layers + 1) % 2**_LAYER_BITS
            if self._thread is None or not self._thread.is_alive():  # in a forked process it is not
                self._thread = threading.Thread(target=self._run, name="kerasbn-compiler", daemon=True)
                self._thread.start()
            return number * 2**_LAYER_BITS + self._layers

    def counts(self, device: str) -> tuple[np.ndarray, np.ndarray]:
        """The keys and values of the table of a device."""
        with tf.device(device):
            table = _table(self.table)
            keys, values = tf.raw_ops.LookupTableExportV2(table_handle=table, Tkeys="int64", Tvalues="int64")
        return keys.numpy(), values.numpy()

    def is_done(self) -> bool:
        """Whether each size that was counted is ready, or could not be compiled."""
        return all(self._is_done(device, set(self.counts(device)[0].tolist())) for device in _devices())

    def _is_done(self, device: str, keys: set[int]) -> bool:
        waiting = (key for key in keys if key > 0 and -key not in keys)
        return all(self._tried.get((*_program_and_rows(key), device)) is False for key in waiting)

    def close(self) -> None:
        """Ends the thread; waits for the program that it is at, since XLA must not outlive the process's end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(60)

    def _run(self) -> None:
        before: dict[str, int] = {}
        wait = BUSY
        while not self._stop.wait(wait):
            try:
                counts = {device: self.counts(device) for device in _devices()}
                totals = {device: int(uses.sum()) for device, (_, uses) in counts.items()}
                wait = BUSY if totals != before else min(2 * wait, IDLE)
                before = totals
                for device, (keys, uses) in counts.items():
                    self._compile(device, keys, uses)
            except Exception as error:  # a thread's exception would end it unseen
                _warn(f"kerasbn compiles nothing more in the background; training goes on uncompiled: {_said(error)}")
                return

    def _compile(self, device: str, keys: np.ndarray, uses: np.ndarray) -> None:
        """Compiles what was used often enough by now on a device."""
        ready = set((-keys[keys < 0]).tolist())
        for key, count in sorted(zip(keys.tolist(), uses.tolist(), strict=True), key=lambda pair: -pair[1]):
            if key <= 0 or key in ready or self._stop.is_set():
                continue
            number, rows = _program_and_rows(key)
            enough = max(MIN_USES, BREAK_EVEN / max(rows * self._programs[number].row_bytes, 1))
            if count >= AHEAD * enough and self._is_ready(number, rows, device):
                with tf.device(device):
                    done, yes = tf.constant([-key], "int64"), tf.constant([1], "int64")
                    tf.raw_ops.LookupTableInsertV2(table_handle=_table(self.table), keys=done, values=yes)

    def _is_ready(self, number: int, rows: int, device: str) -> bool:
        this = (number, rows, device)
        if this not in self._tried and not self._has_room():
            return False
        if this not in self._tried:
            try:
                with tf.device(device):
                    self._programs[number].compile_for(rows)
                self._tried[this] = True
            except Exception as error:
                self._tried[this] = False
                _warn(f"kerasbn could not compile a batch normalization, which goes on uncompiled: {_said(error)}")
        return self._tried[this]

    def _has_room(self) -> bool:
        full = len(self._tried) >= MAX_PROGRAMS or _memory_maps() > MAX_MAPS * _max_memory_maps()
        if full and not self._is_full:
            _warn(
                f"kerasbn compiles no more than {len(self._tried)} batch normalizations in this process, as XLA gives "
                "nothing back. Other sizes are computed by TensorFlow's operations, more slowly. Set "
                "jit_compile=False in the layers if sizes change all the time."
            )
        self._is_full = self._is_full or full
        return not full


def _devices() -> list[str]:
    return [device.name for device in tf.config.list_logical_devices("CPU")]


def _program_and_rows(key: int) -> tuple[int, int]:
    return key >> _ROW_BITS >> _LAYER_BITS, key & (2**_ROW_BITS - 1)


def _memory_maps() -> int:
    """How many memory maps the process has, on Linux."""
    maps = Path("/proc/self/maps")
    return maps.read_bytes().count(b"\n") if maps.exists() else 0


def _max_memory_maps() -> int:
    """How many it may have; with one more than this it is ended by a segmentation fault."""
    limit = Path("/proc/sys/vm/max_map_count")
    return int(limit.read_text()) if limit.exists() else 65_530


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _warn(message: str) -> None:
    """A warning, which filters may have made an error: in a thread nobody would catch it."""
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    except RuntimeWarning:
        pass


_compiler = _Compiler()
atexit.register(_compiler.close)
