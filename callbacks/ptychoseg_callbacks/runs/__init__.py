"""Open runs: their frames, account, checkpoints."""
