"""Encoders: waveforms and texts in, frames of chosen layers out; energy and voice activity."""
