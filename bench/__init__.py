"""Benchmarks: they import the project; nothing imports them."""
