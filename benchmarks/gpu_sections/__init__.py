"""Sections of `benchmarks/gpu_acceptance.py`, one module each."""
