"""Fusion: from a Plan to one compiled function, and the readable source of it."""
