"""The table of what was compiled and what was timed."""

import math

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def rows(content: dict) -> list[list[str]]:
    """One row for each shape, dtype and activation: Keras's layer, then ours.

    "compiled" is read off the programs; "timed" is the sum of the times of the kernels of one step on the card; the
    last column compares ours with the time in which the card copies one batch four times.
    """
    compiled = {_key(r): r for r in content["compiled"] if "layer" in r}
    timed = {_key(r): r for r in content["timed"] if r["what"] in ("keras", "kerasbn", "torch", "copy")}
    found = [
        [
            "batch",
            "dtype",
            "activation",
            "kernels compiled",
            "passes compiled",
            "temporary MB compiled",
            "microseconds timed",
            "PyTorch timed",
            "copies timed",
        ]
    ]
    for shape, dtype, activation, layer in compiled:
        if layer != "keras":
            continue
        cases = [compiled[shape, dtype, activation, layer] for layer in ("keras", "kerasbn")]
        times = [timed.get((shape, dtype, activation, layer), {}) for layer in ("keras", "kerasbn", "torch")]
        copy = timed.get((shape, dtype, None, "copy"), {}).get("kernel_microseconds", math.nan)
        size = math.prod(shape) * BYTES[dtype]
        keras, ours, torch = (time.get("kernel_microseconds", math.nan) for time in times)
        found.append(
            [
                "x".join(map(str, shape)),
                dtype,
                activation or "",
                " / ".join(str(case["kernels"]) for case in cases),
                " / ".join(f"{(case['read'] + case['written']) / size:.2f}" for case in cases),
                " / ".join(f"{case['temporary'] / 1e6:.2f}" for case in cases),
                f"{keras:.1f} / {ours:.1f}",
                f"{torch:.1f}",
                f"{ours / (4 * copy):.2f}",
            ]
        )
    return found


def _key(record: dict) -> tuple[tuple[int, ...], str, str | None, str]:
    return tuple(record["shape"]), record["dtype"], record.get("activation"), record.get("layer") or record["what"]
