"""Reads records from every source into one tidy table."""
