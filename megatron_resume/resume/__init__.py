"""Decisions, all pure: which resume point a start takes, and which arguments that changes."""
