"""One network on several devices of one machine."""
