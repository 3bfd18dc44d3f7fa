"""Acoustic cues on the frame grid, and what they are like where the model listens."""
