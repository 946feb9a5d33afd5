"""What folders say: a run's, an adapter's, an export's."""
