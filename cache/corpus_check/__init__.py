"""`prepare check`: what recordings and texts of a manifest are like, and what leaks."""
