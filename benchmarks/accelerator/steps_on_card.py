"""Steps on the first device of JAX: numbers against float64, and times. Also on a CPU, where the times say little.

Two times of a step: wall clock, the median over repetitions of (many steps begun, one wait) / many; and on a GPU the
sum of the times of its kernels, from the profiler. The unit to compare with is a copy: the time in which the device
reads and writes one tensor of the same bytes.
"""

import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch wants some of the memory

import jax
import jax.numpy as jnp
import numpy as np
from jaxlib import xla_client  # JAX has no public way to run a StableHLO text

try:
    import torch
except ImportError:
    torch = None

OUTPUTS = ("y", "dx", "dgamma", "dbeta", "moving_mean", "moving_variance")
#: Where the batch lies: standard deviations from 0.
FAR = {"float32": 1000.0, "bfloat16": 100.0, "float16": 100.0}


class Program:
    """A StableHLO text, compiled for the first device."""

    def __init__(self, text: str) -> None:
        device = jax.devices()[0]
        begin = time.perf_counter()
        self._program = device.client.compile_and_load(
            text, xla_client.DeviceList((device,)), xla_client.CompileOptions()
        )
        self.seconds = time.perf_counter() - begin
        self.temporary = self._program.get_compiled_memory_stats().temp_size_in_bytes

    def __call__(self, *arguments: jax.Array) -> list[jax.Array]:
        results = self._program.execute_sharded(list(arguments)).disassemble_into_single_device_arrays()
        return [result[0] for result in results]


def layer_records(folder: Path, seconds: float) -> Iterator[dict]:
    """Each step of a layer in turn, and PyTorch's and a copy of the same shape and dtype."""
    cases = json.loads((folder / "index.json").read_text())
    for shape, dtype in dict.fromkeys((tuple(case["shape"]), case["dtype"]) for case in cases):
        about = {"shape": shape, "dtype": dtype}
        near, far, outliers = (_inputs(shape, dtype, *where) for where in ((0.0,), (FAR[dtype],), (0.0, FAR[dtype])))
        yield about | {"what": "copy"} | _times(partial(jax.jit(jnp.negative), near[0]), seconds)
        for activation in dict.fromkeys(case["activation"] for case in cases):
            wanted = {id(inputs): _reference(inputs, activation, cases[0]) for inputs in (near, far, outliers)}
            for case in cases:
                if (tuple(case["shape"]), case["dtype"], case["activation"]) != (shape, dtype, activation):
                    continue
                program = Program((folder / case["file"]).read_text())
                yield {
                    **about,
                    "what": case["layer"],
                    "activation": activation,
                    "errors": _errors(program(*near), wanted[id(near)]),
                    "errors_far": _errors(program(*far), wanted[id(far)]),
                    "errors_outliers": _errors(program(*outliers), wanted[id(outliers)]),
                    "compile_seconds": program.seconds,
                    "temporary": program.temporary,
                    **_times(partial(program, *near), seconds),
                }


def torch_records(folder: Path, seconds: float) -> Iterator[dict]:
    """PyTorch's step for each shape, dtype and activation. Run last: its profiler and JAX's exclude each other."""
    cases = json.loads((folder / "index.json").read_text())
    for case in {(tuple(c["shape"]), c["dtype"], c["activation"]): c for c in cases}.values() if torch else ():
        about = {"shape": case["shape"], "dtype": case["dtype"], "activation": case["activation"]}
        inputs = _inputs(tuple(case["shape"]), case["dtype"], 0.0)
        yield about | {"what": "torch"} | _torch(inputs, case["activation"], case, seconds)


def network_records(folder: Path, seconds: float) -> Iterator[dict]:
    """A training step of each network; its first loss tells whether they compute the same."""
    for case in json.loads((folder / "networks.json").read_text()):
        program = Program((folder / case["file"]).read_text())
        inputs = [_initial(number, each) for number, each in enumerate(case["inputs"])]
        outputs = program(*inputs)
        yield {
            **{key: value for key, value in case.items() if key != "inputs"},
            "what": "network",
            "loss": float(outputs[0]),
            "compile_seconds": program.seconds,
            "temporary": program.temporary,
            **_times(partial(program, *inputs), seconds, names=True),
        }


def _inputs(shape: tuple[int, ...], dtype: str, offset: float, outliers: float = 0.0) -> tuple[jax.Array, ...]:
    """x, dy, gamma, beta, moving mean and variance of a step. The first samples, one of a hundred, lie elsewhere."""
    keys, c = jax.random.split(jax.random.key(0), 4), shape[-1:]
    x = jax.random.normal(keys[0], shape) + offset
    x = x.at[: -(-shape[0] // 100)].add(outliers).astype(dtype)
    dy = jax.random.normal(keys[1], shape).astype(dtype)
    gamma = jax.random.uniform(keys[2], c, minval=0.5, maxval=1.5)
    beta = jax.random.uniform(keys[3], c, minval=-1.0, maxval=1.0)
    return x, dy, gamma, beta, jnp.zeros(c), jnp.ones(c)


def _initial(number: int, wanted: dict) -> jax.Array:
    shape, dtype = tuple(wanted["shape"]), wanted["dtype"]
    if "stddev" in wanted:
        return (wanted["stddev"] * jax.random.normal(jax.random.key(number), shape)).astype(dtype)
    if dtype == "int32":
        return jnp.arange(math.prod(shape), dtype=dtype).reshape(shape)
    return jnp.full(shape, wanted["value"], dtype)


def _reference(inputs: tuple[jax.Array, ...], activation: str | None, case: dict) -> tuple[jax.Array, ...]:
    """The outputs in float64, by the formulas as they are in the paper."""
    options = {"activation": activation, "epsilon": case["epsilon"], "momentum": case["momentum"]}
    with jax.enable_x64(True):
        return jax.jit(partial(_float64_step, **options))(*inputs)


def _float64_step(x, dy, gamma, beta, moving_mean, moving_variance, *, activation, epsilon, momentum):
    x, dy, gamma, beta = (t.astype("float64") for t in (x, dy, gamma, beta))
    axes, n = tuple(range(x.ndim - 1)), math.prod(x.shape[:-1])
    mean = x.mean(axes)
    variance = jnp.square(x - mean).mean(axes)
    stddev = jnp.sqrt(variance + epsilon)
    x_hat = (x - mean) / stddev
    z = x_hat * gamma + beta
    dz = jnp.where(z > 0, dy, 0) if activation else dy
    dgamma, dbeta = (dz * x_hat).sum(axes), dz.sum(axes)
    dx = gamma / stddev * (dz - (dbeta + x_hat * dgamma) / n)
    y = jnp.maximum(z, 0) if activation else z
    moved = (momentum * old + (1 - momentum) * new for old, new in ((moving_mean, mean), (moving_variance, variance)))
    return y, dx, dgamma, dbeta, *moved


def _errors(outputs: Sequence[jax.Array], wanted: Sequence[jax.Array]) -> dict[str, float]:
    """The largest difference of each output to its reference, as a share of the largest value there."""
    with jax.enable_x64(True):
        return {name: float(_error(*pair)) for name, *pair in zip(OUTPUTS, outputs, wanted, strict=True)}


@jax.jit
def _error(output: jax.Array, reference: jax.Array) -> jax.Array:
    return jnp.abs(output.astype("float64") - reference).max() / jnp.abs(reference).max()


def _times(run: Callable[[], Any], seconds: float, names: bool = False) -> dict[str, Any]:
    wall, repetitions = _wall(run, jax.block_until_ready, seconds)
    return {"microseconds": wall, "repetitions": repetitions} | _kernel_times(run, names)


def _wall(run: Callable[[], Any], wait: Callable[[Any], Any], seconds: float) -> tuple[float, int]:
    """Median microseconds of a run when many are begun before the first is waited for, and how many repetitions."""
    wait(run())
    begin = time.perf_counter()
    wait(run())
    many = max(1, min(50, int(0.02 / (time.perf_counter() - begin))))
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        begin = time.perf_counter()
        for _ in range(many):
            last = run()
        wait(last)
        times.append((time.perf_counter() - begin) / many)
    return statistics.median(times) * 1e6, len(times)


def _kernel_times(run: Callable[[], Any], names: bool, times: int = 20) -> dict[str, Any]:
    """Microseconds and number of kernels in one run on the streams of a GPU, if the profiler can tell; and by name."""
    if jax.devices()[0].platform == "cpu":
        return {}
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(times):
                last = run()
            jax.block_until_ready(last)
        for file in Path(folder).rglob("*.xplane.pb"):
            for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
                for line in plane.lines if plane.name.startswith("/device:GPU") else ():
                    for event in line.events if line.name.startswith("Stream") else ():
                        found.setdefault(event.name, []).append(event.duration_ns / times / 1e3)
    if not found:
        return {}
    totals = {name: sum(durations) for name, durations in sorted(found.items(), key=lambda item: -sum(item[1]))}
    sums = {"kernel_microseconds": sum(totals.values()), "launched": sum(map(len, found.values())) / times}
    return sums | ({"kernels": totals} if names else {})


def _torch(inputs: tuple[jax.Array, ...], activation: str | None, case: dict, seconds: float) -> dict[str, Any]:
    """PyTorch's forward and backward pass on channels last: as autograd runs them, and as one CUDA graph."""
    on = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, str(inputs[0].dtype))

    def tensor(a):
        t = torch.from_numpy(np.asarray(a).astype("float32")).to(on, dtype)
        return t.permute(0, 3, 1, 2) if t.ndim == 4 else t  # a view of channels last

    x, dy = tensor(inputs[0]).requires_grad_(), tensor(inputs[1])
    gamma, beta = (torch.from_numpy(np.array(v)).to(on).requires_grad_() for v in inputs[2:4])
    mean, variance = (torch.from_numpy(np.array(v)).to(on) for v in inputs[4:])

    def step():
        y = torch.nn.functional.batch_norm(x, mean, variance, gamma, beta, True, 1 - case["momentum"], case["epsilon"])
        y = torch.relu(y) if activation else y
        return (y, *torch.autograd.grad(y, (x, gamma, beta), dy))

    if on == "cpu":
        return {"microseconds": _wall(step, lambda _: None, seconds)[0]}

    def wait(_: Any = None) -> None:
        torch.cuda.synchronize()

    found = {"microseconds": _wall(step, wait, seconds)[0]}
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = step()
    found["graph_microseconds"] = _wall(graph.replay, wait, seconds)[0]
    del kept
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(20):
            step()
        wait()
    launched = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    sums = {"kernel_microseconds": sum(event.device_time for event in launched) / 20, "launched": len(launched) / 20}
    return found | sums


def records(folder: Path, seconds: float) -> Iterator[dict]:
    """The machine; each step of a layer, each network, and PyTorch's steps, as far as they are in the folder."""
    yield {
        "what": "machine",
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "torch": torch and torch.__version__,
    }
    kinds = (("index.json", layer_records), ("networks.json", network_records), ("index.json", torch_records))
    for index, of_kind in kinds:
        if (folder / index).exists():
            yield from of_kind(folder, seconds)
