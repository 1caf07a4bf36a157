"""The search for good options, by keras-tuner: its space, its trials and what it leaves."""
