"""Lightning tasks, one file each."""
