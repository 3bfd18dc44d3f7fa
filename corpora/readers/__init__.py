"""Corpora as their makers publish them: one file each, and the registry that knows them by name."""
