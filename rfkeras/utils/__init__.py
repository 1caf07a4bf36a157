"""Helpers for all rooms: files and locks, progress, tables, text and plot style."""
