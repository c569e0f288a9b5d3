"""Sections of `benchmarks/gpu_acceptance.py`, one module each, and what they share."""
