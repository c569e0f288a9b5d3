"""Reports where runs stand."""
