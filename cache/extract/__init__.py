"""Extraction: what the cache lacks is planned, decoded, encoded and written."""
