"""Extracting: what is missing, made and written."""
