"""Speed and memory of the library, compared with PyTorch, librosa and the hardware limit.

`python -m benchmarks` (or `make bench`) measures everything and writes tables.
`python -m benchmarks --list` lists the sections.
"""
