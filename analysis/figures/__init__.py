"""Draws the figures of the catalogue."""
