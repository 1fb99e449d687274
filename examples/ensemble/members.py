"""The six networks of the ensemble, and the one that they are modified from."""

from examples.inception.networks import Network

REFERENCE = "reference"

#: Some of what the paper names each: it does not say which network has which.
_MODIFIED = {
    "larger_weights": {"initialization": True},
    "dropout_5": {"dropout": 0.05},
    "dropout_10": {"dropout": 0.1},
    "per_activation": {"per_activation": True},
    "larger_weights_dropout_5": {"initialization": True, "dropout": 0.05},
    "per_activation_dropout_10": {"per_activation": True, "dropout": 0.1},
}
#: Names of the six.
MEMBERS = tuple(_MODIFIED)


def networks(factor: float, larger: float) -> dict[str, Network]:
    """The reference, BN-x`factor`, and the six, in which larger initial weights are `larger` times He's."""
    made = {REFERENCE: Network(f"BN-x{factor:g}, not modified", factor, normalized=True, accelerated=True)}
    for name, modified in _MODIFIED.items():
        own = dict(modified)
        parts = []
        if own.pop("initialization", False):
            own["initialization"] = larger
            parts.append(f"weights x {larger:g}")
        if own.get("per_activation"):
            parts.append("per-activation BN")
        if "dropout" in own:
            parts.append(f"dropout {own['dropout']:.0%}")
        made[name] = Network(", ".join(parts), factor, normalized=True, accelerated=True, **own)
    return made
