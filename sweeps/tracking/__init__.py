"""Monitor sweeps: states of runs, progress, and records of launches."""
