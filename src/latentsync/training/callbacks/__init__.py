"""What watches a training or writes beside it."""
