"""Operators: one file per family, one table (table.py). Imported as `litejit.ops` only."""
if __name__ != "litejit.ops":
    raise ImportError(f"import litejit.ops, not {__name__}: under two names every kernel would exist twice")
