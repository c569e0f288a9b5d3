"""Environments: the task table and `make_env`, with one adapter per simulator."""
