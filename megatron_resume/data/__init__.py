"""The order of prompts, and where they come from."""
