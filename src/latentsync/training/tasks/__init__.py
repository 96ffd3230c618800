"""What Lightning trains: one file a task."""
