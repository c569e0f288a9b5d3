"""Replay buffers, and the types that they hold."""
