"""Models that are loaded to be tried, and what their answers say."""
