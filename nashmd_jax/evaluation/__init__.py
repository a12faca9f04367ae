"""Tournaments between trained policies, and the report page."""
