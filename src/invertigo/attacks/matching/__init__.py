"""Gradient matching: one engine, and published attacks as recipes on it."""
