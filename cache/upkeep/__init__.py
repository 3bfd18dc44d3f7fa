"""Upkeep: look through a cache, mend it, make it smaller."""
