"""What a run takes of memory: measured, computed ahead, and fitted into what there is."""
