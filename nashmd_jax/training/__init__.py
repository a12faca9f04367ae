"""State, optimizer, devices, checkpoints, metrics and the one loop."""
