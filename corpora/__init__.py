"""Corpora: from a folder of recordings to a manifest of labelled utterances."""
