"""Compiles steps for a card that need not be there, and reads what the programs do: `compile_all`.

Needs JAX with its CUDA plugin (``pip install -e ".[accelerator]"``), no driver and no card. It is the compiler of XLA
that the plugin holds; what TensorFlow holds is older or newer by some months. JAX has no public way to compile for a
device that is described and not there, so this module uses private names of JAX, and is the one place that does.
"""

import json
import os
import re
import statistics
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import jax_plugins.xla_cuda13 as plugin
import nvidia.cu13  # type: ignore[import-not-found]
from jax._src.interpreters import mlir
from jax._src.lib import _jax, xla_client
from jax._src.lib.mlir import ir

from benchmarks.accelerator.program import condensed, traffic
from benchmarks.report import write_whole

CARD = Path(__file__).with_name("h100.txtpb")


class Compiler:
    """XLA's compiler for a described card."""

    def __init__(self, card: Path = CARD) -> None:
        toolkit = next(iter(nvidia.cu13.__path__))
        flags = f"--xla_gpu_autotune_level=0 --xla_gpu_cuda_data_dir={toolkit}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
        library = Path(plugin.__file__).parent / "xla_cuda_plugin.so"
        api = xla_client.load_pjrt_plugin_dynamically("cuda", str(library))
        xla_client.initialize_pjrt_plugin("cuda")
        topology = xla_client.make_c_api_device_topology(api, "", topology="1x1x1", target_config=card.read_text())
        self._devices = topology._make_compile_only_devices()
        self.card = re.search(r'device_description_str: "(.*)"', card.read_text())[1]

    def compile(self, text: str) -> tuple[str, int, float]:
        """The text of the optimized program of a StableHLO module, its temporary memory in bytes, seconds it took."""
        context = mlir.make_ir_context()
        context.allow_unregistered_dialects = True
        with context:
            module = ir.Module.parse(text)
        begin = time.perf_counter()
        devices = _jax.DeviceList(tuple(self._devices))
        program = self._devices[0].client.compile(module, devices, xla_client.CompileOptions())
        seconds = time.perf_counter() - begin
        memory = program.get_compiled_memory_stats().temp_size_in_bytes
        return program.hlo_modules()[0].to_string(), memory, seconds


def compile_all(folder: Path, repetitions: int, only: str = "", programs: Path | None = None) -> Iterator[dict]:
    """One record for each step in a folder: what the index says of it, and what the program does.

    Steps are compiled in turns, all once in each of so many `repetitions`, and the median time is taken.
    """
    compiler = Compiler()
    cases = [case for index in sorted(folder.glob("*.json")) for case in json.loads(index.read_text())]
    cases = [case for case in cases if only in case["file"]]
    texts = [(folder / case["file"]).read_text() for case in cases]
    compiler.compile(texts[0])  # the first one starts the compiler, too
    seconds: list[list[float]] = [[] for _ in cases]
    for _ in range(repetitions - 1):
        for text, times in zip(texts, seconds, strict=True):
            times.append(compiler.compile(text)[2])
    for case, text, times in zip(cases, texts, seconds, strict=True):
        program, memory, time_taken = compiler.compile(text)
        if programs:
            write_whole(programs / f"{case['file']}.hlo", condensed(program).encode())
        yield {
            **{key: value for key, value in case.items() if key != "inputs"},
            **traffic(program)._asdict(),
            "temporary": memory,
            "compile_seconds": statistics.median([*times, time_taken]),
            "card": compiler.card,
            "jax": version("jax"),
        }
