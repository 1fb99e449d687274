"""What networks and Jacobians are called in tables and legends."""

NETWORK_LABELS = {
    "all": "with BN",
    "none": "without BN",
    "last": "BN on the last layer alone",
}
KIND_LABELS = {
    "none": "without BN",
    "held": "with BN, moments held",
    "batch": "with BN, whole batch",
}
COLORS = {"all": "#1f5fa8", "none": "#b5520b", "last": "#2a8a4a"}
