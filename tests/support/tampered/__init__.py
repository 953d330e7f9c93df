"""What tests spoil in a run of the example, to show that they would see it; see entry.py."""
