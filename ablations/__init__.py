"""Ablations: what each design choice is worth, as data, runs and verdicts."""
