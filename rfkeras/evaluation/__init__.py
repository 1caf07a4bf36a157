"""How good a tagger is: metrics, confidence intervals, report, table and plots."""
