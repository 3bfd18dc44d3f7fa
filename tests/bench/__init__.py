"""Tests of the benchmarks: they run and say what they are meant to. Nothing is timed."""
