"""TD-MPC2: scalable, robust world models for continuous control."""
