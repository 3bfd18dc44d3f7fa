"""What `predict` is made of: recordings, texts, batches, answers, tables."""
