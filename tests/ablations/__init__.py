"""Tests of `ablations/`."""
