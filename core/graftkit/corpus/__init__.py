"""From records to token sequences. Nothing here loads torch."""
