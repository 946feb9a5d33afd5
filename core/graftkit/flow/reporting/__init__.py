"""What a finished run shows of itself: its folder read again, its report, and what plugins add to that."""
