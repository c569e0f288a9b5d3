"""The files of one run directory, and what a run is."""
