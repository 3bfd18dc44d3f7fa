"""Whether the frames that attention points to are those the head's answer depends on."""
