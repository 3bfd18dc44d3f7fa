"""What `evaluate` is made of: subjects, groups, calibration, comparisons, pictures."""
