"""Sweeps over receptive fields and hyper-parameter searches."""
