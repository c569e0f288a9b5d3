"""Computes statistics, comparisons and verdicts from records."""
