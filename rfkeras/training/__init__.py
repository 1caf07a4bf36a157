"""Losses, schedules, checkpoints and the loop around `model.fit`."""
