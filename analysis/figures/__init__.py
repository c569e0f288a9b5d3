"""Draws the figures of the catalog."""
