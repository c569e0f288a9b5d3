"""Trained models as files: official checkpoints, runs of this project, and their formats."""
