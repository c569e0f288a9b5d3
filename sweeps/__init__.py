"""Launch and monitor grids of training runs, on this machine or on a SLURM cluster."""
