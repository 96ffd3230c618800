"""Evaluation: a model on test clips, or a folder of results against references."""
