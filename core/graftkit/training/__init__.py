"""Trains what is on the frozen weights: order of rows, schedule, loss, loop."""
