"""Many runs that differ in receptive field, variant and seed, and what they show together."""
