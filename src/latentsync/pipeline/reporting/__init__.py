"""Report of a run: report.json, the HTML page, the output monitor, the sync scorer."""
