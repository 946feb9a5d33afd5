"""Trains what is on the frozen weights: order of examples, schedule, loss, loop."""
