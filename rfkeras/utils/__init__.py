"""Helpers for all packages: files and locks, progress, tables, text and plot style."""
