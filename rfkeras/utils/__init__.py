"""Files, locks, progress, tables and plot style that all rooms share."""
