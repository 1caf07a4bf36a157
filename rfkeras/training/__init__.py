"""Training: one step, the loop of epochs, the run folder, scoring, and several workers."""
