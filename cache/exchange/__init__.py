"""Exchange: features to and from other formats."""
