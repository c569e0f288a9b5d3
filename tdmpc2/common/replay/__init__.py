"""Replay buffers and the types of transitions, episodes and batches."""
