"""The training loop, evaluation and the environments it steps."""
