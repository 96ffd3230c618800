"""What a run says of itself: report.json, the page, the monitor, the scorer."""
