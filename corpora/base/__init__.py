"""What all floors use and no corpus is needed for: errors, files, work folder, locks, terminal."""
