"""Numerics: devices, precision, compilation, native code, seeds, optimizer steps."""
