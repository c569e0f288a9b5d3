"""Command-line parsing, errors, atomic files, paths and downloads."""
