"""What an optimized XLA:GPU program does, read off its text: kernels, and the bytes that they read and write.

Needs no package. What a kernel takes of an operand of which it reads a slice alone is the slice.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import NamedTuple

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "c64": 8, "f64": 8, "s64": 8, "u64": 8}

#: Instructions that become a kernel, or a call of a library, each.
KERNELS = ("fusion", "copy", "reduce", "custom-call", "transpose", "sort", "scatter", "convert", "pad", "concatenate")
ASYNCHRONOUS = ("fusion-start", "copy-start", "custom-call-start")

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)")
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_OPERAND = re.compile(r"%([\w.\-]+)")


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    shape: str
    operation: str
    rest: str

    @property
    def operands(self) -> list[str]:
        return _OPERAND.findall(self.rest.split("), ")[0])


Computation = list[Instruction]


class Traffic(NamedTuple):
    """What kernels do in one step.

    Attributes:
        kernels: How many there are, calls of libraries included.
        loops: `while` loops; the host may have to wait for their conditions.
        read: Bytes.
        written: Bytes.
    """

    kernels: int = 0
    loops: int = 0
    read: int = 0
    written: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":  # type: ignore[override]
        return Traffic(*(a + b for a, b in zip(self, other, strict=True)))


def condensed(text: str) -> str:
    """The text of a program without what says nothing about it: where an operation comes from, how it was tuned."""
    return re.sub(r", (metadata|backend_config|frontend_attributes)=\{.*$", "", text, flags=re.MULTILINE)


def fingerprint(step: str) -> str:
    """What the StableHLO text of a step has in common with every trace of the same step."""
    return hashlib.sha256(" ".join(re.findall(r"stablehlo\.\w+|tensor<[^>]*>", step)).encode()).hexdigest()


def traffic(text: str) -> Traffic:
    """That of one run of a program. Of a loop it counts one iteration, and its condition twice."""
    computations, entry = _parse(text)
    return _of(computations[entry], computations)


def _parse(text: str) -> tuple[dict[str, Computation], str]:
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            current = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif current is not None and (found := _INSTRUCTION.match(line)):
            current.append(Instruction(*found.groups()))
    return computations, entry


def _of(computation: Computation, computations: Mapping[str, Computation]) -> Traffic:
    shapes = {instruction.name: instruction.shape for instruction in computation}
    total = Traffic()
    for instruction in computation:
        if instruction.operation == "while":
            condition, body = (_called(instruction, part, computations) for part in ("condition", "body"))
            total += Traffic(loops=1) + _of(body, computations)
            total += Traffic(*(2 * n for n in _of(condition, computations)))
        elif instruction.operation == "call" and "to_apply" in instruction.rest:
            total += _of(_called(instruction, "to_apply", computations), computations)
        elif instruction.operation in KERNELS or instruction.operation in ASYNCHRONOUS:
            read = sum(_read(i, instruction, shapes, computations) for i in range(len(instruction.operands)))
            total += Traffic(1, 0, read, _size(instruction.shape))
    return total


def _read(number: int, kernel: Instruction, shapes: Mapping[str, str], computations: Mapping[str, Computation]) -> int:
    """The bytes that a kernel reads of one of its operands."""
    whole = _size(shapes.get(kernel.operands[number], ""))
    if kernel.operation != "fusion":
        return whole
    inside = _called(kernel, "calls", computations)
    names = {i.name for i in inside if i.operation == "parameter" and i.rest.startswith(f"{number})")}
    for instruction in inside:  # in order: what a view is of comes before it
        if instruction.operation == "bitcast" and names & set(instruction.operands):
            names.add(instruction.name)
    users = [i for i in inside if names & set(i.operands) and i.operation != "bitcast"]
    if users and all(i.operation in ("slice", "dynamic-slice") for i in users):
        return min(whole, sum(_size(i.shape) for i in users))
    return whole


def _called(instruction: Instruction, how: str, computations: Mapping[str, Computation]) -> Computation:
    return computations[re.search(rf"{how}=%?([\w.\-]+)", instruction.rest)[1]]


def _size(shape: str) -> int:
    """Bytes of all arrays in the text of a shape."""
    total = 0
    for dtype, sizes in _SHAPE.findall(shape):
        elements = 1
        for size in filter(None, sizes.split(",")):
            elements *= int(size)
        total += elements * BYTES.get(dtype, 4)
    return total
