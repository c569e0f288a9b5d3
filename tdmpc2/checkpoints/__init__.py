"""Trained models as files: official checkpoints, this project's runs, and formats between them."""

from tdmpc2.checkpoints.official import import_official

__all__ = ["import_official"]
