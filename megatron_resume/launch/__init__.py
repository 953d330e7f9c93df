"""One policy in, and out comes what each launch engine is told: pure functions, one file per engine."""
