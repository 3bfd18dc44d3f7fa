"""What training runs on: processes and devices, hidden states from the cache, checkpoints."""
