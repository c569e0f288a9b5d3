"""Baselines of the paper, trained with the same trainer, environment wrappers and records."""
