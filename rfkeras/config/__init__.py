"""Options of a training run: their table, parsing, recipes and defaults."""
