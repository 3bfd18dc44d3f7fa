"""One page for the whole work folder: every stage that was run, and what is missing."""
