"""Trained models as files: official checkpoints, runs of this project, and their formats."""

from tdmpc2.checkpoints.official import import_official

__all__ = ["import_official"]
