"""Which convolutions of `resnet` are meant by their number on the longest path, as Bjorck et al. count layers."""

OF = 110
#: The layers that the paper's table has.
TABLE = (18, 54, 90)
BY_DEPTH = 12


def layer_name(number: int) -> str:
    """The name of convolution `number`: 1 is the stem, then come two a block."""
    if number == 1:
        return "stem"
    return f"b{number // 2}_conv_{1 + number % 2}"


def middle(depth: int) -> int:
    """The number of the layer in the middle: 55 of 110."""
    return depth // 2


def table_layers(depth: int) -> list[int]:
    """The layers where the paper's 18, 54 and 90 of 110 are in a network of `depth`."""
    return [max(2, round(depth * number / OF)) for number in TABLE]


def layers_by_depth(depth: int) -> list[int]:
    """Convolutions of blocks at equal distances from first to last."""
    last, count = depth - 1, min(BY_DEPTH, depth - 2)
    return [round(2 + (last - 2) * i / (count - 1)) for i in range(count)]


def blocks(depth: int) -> list[int]:
    """The numbers of the blocks."""
    return list(range(1, (depth - 2) // 2 + 1))
