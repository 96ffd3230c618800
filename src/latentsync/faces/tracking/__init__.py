"""Faces over time: shots, tracks, identities."""
