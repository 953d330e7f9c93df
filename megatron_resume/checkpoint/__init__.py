"""What is on disk: layout, records, atomic writes, attempts, commit, reading."""
