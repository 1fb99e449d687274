"""What is compared, and the names of it all in tables and figures."""

NETWORKS = {"plain": "without BN", "batch_norm": "with BN", "noisy": "with BN, then noise"}
BASELINE = "plain"

SAME, OWN = "same", "own"
COMPARISONS = {SAME: "all at the best rate of the network without BN", OWN: "each at its own best rate"}

PLACES = {
    "nonlinearity": "inputs of the nonlinearities",
    "layer": "inputs of the next layers",
    "linear": "before BN",
}
SINCE = {"step": "between snapshots", "start": "from the start"}
#: What one number is made of: of all snapshots, or of those of the second half, when no network stands still any more.
PERIODS = {
    "step": "between snapshots",
    "late": "between snapshots, second half",
    "start": "from the start",
}
#: The metrics of the monitor, with their units.
METRIC_LABELS = {
    "mean": "mean / deviation",
    "deviation": "log of deviation",
    "gaussian_kl": "Gaussian KL, nats",
    "histogram_kl": "histogram KL, nats",
    "wasserstein": "Wasserstein-1 / deviation",
    "mean_absolute": "mean, absolute",
    "wasserstein_absolute": "Wasserstein-1, absolute",
}
