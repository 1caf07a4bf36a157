"""Options of a training run, by group, and the parsers of their values."""
