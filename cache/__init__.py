"""Cache: from a manifest to frame streams on disk and ragged frames in memory."""
