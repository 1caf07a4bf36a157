"""Evaluation of taggers: metrics, confidence intervals, thresholds, reports and plots."""
