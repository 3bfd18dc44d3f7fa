"""Heads: pooling heads trained on cached frames, and the search over them."""
