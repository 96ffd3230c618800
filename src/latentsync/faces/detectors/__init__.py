"""Detectors of faces and their landmarks in single frames."""
