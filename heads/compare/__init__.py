"""The comparison: published poolings and modalities on one corpus, with seeds and intervals."""
