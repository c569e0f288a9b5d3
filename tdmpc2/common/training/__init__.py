"""The training loop, evaluation, sessions with signal handling, and groups of environments."""
