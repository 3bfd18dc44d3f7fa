"""Store: parts on disk, how they enter, who may touch them."""
