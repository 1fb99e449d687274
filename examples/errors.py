"""What a command says in one sentence before it ends."""


class Refused(Exception):
    """What was asked for cannot be done; the message says why, and what to do instead."""
