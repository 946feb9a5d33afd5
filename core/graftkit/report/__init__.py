"""The report of a run: one HTML file, no network, no scripts."""
