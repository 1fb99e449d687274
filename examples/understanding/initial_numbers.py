"""Numbers as they are written down."""

from typing import Any

import numpy as np


def significant(values: Any, digits: int = 4) -> Any:
    """A number, or nested lists of an array's, with so many significant digits; what is not finite is `None`."""
    array = np.asarray(values)
    if array.ndim:
        return [significant(each, digits) for each in array]
    return float(f"{float(array):.{digits}g}") if np.isfinite(array) else None
