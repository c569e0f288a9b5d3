"""Figures: catalog, styles, plot functions and output files."""
