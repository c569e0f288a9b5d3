"""What every method shares: interfaces, run specifications, replay, training, records."""
