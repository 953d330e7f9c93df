"""Progress of this rank, and the small process beside it that sees hangs and deaths."""
