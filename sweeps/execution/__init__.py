"""Run sweeps in local processes or as SLURM jobs."""
