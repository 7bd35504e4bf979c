"""Executor: plans on memory and threads."""
