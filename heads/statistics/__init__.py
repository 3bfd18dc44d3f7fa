"""Statistics: scores from confusion matrices, their intervals and comparisons."""
