"""Environments: the task table, and one adapter per simulator behind `make_env`."""
