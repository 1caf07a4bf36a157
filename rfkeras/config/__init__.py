"""The options of a training run: their definitions, recipes, and resolution."""
