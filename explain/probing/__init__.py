"""Which acoustic cues can be read from utterance vectors, layer by layer."""
