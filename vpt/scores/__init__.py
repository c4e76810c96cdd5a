"""Scores and what is told of them."""
