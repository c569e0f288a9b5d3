"""Starts processes and SLURM jobs."""
