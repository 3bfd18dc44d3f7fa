"""Evaluation: heads and models scored on a split, calibrated and compared."""
