"""Measures of a result: pure functions."""
