"""Exit codes of `sweeps/launch.py` besides 0 to 2."""

ASKS_FIRST = 3
LEFT_OUT = 4
