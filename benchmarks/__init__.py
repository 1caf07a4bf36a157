"""How fast the library is: beside PyTorch, librosa and the processor's own limit.

`python -m benchmarks` (or `make bench`) measures everything and writes tables;
`python -m benchmarks --list` names the sections.
"""
