"""Fine-tuning: the searched head and both encoders, end to end."""
