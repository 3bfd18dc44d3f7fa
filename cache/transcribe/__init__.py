"""Transcription: Whisper fills in the texts that a manifest lacks."""
