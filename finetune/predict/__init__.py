"""Prediction: recordings in, answers out."""
