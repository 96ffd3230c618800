"""Faces over time: shots, tracks, persons."""
