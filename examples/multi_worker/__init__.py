"""One network on several processes or machines."""
