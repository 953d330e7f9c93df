"""A double of ChatLearn 1.0 in a few lines of our own: the calls of its engine that matter to saving and resuming.

Only the order of calls and their names are ChatLearn's. An actor is a forked process instead of Ray's.
"""
