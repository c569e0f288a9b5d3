"""Run specifications and the files of a run directory: records, checkpoints, lease, provenance."""
