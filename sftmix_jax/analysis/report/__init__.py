"""Reports: results → report.json → a page."""
