"""Deciding: what is dead, what to choose, and the plan that says so."""
