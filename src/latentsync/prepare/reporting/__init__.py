"""report.html: what came of all recordings, to look at."""
