"""What is measured on what: a model on test clips, a folder of results against references."""
