"""Our one line in the entrypoints of a source tree: which files need it, where it goes, and how it is taken out."""
