"""Expand command-line arguments into runs, and estimate the cost of the runs."""
