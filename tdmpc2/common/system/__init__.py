"""Command lines, errors, files, paths and downloads."""
