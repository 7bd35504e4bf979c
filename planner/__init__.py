"""Planner: from a Model's subgraph to a Plan. Imported as `litejit.planner` only.

The passes in order, each in a file of its own:

    build       subgraph -> Graph; missing operators are named all at once
    infer       shapes; constants folded; which nodes use XNNPACK's arithmetic
    fuse        producer and consumer pairs become one node
    lower       nodes -> steps and jumps; views and parts (pieces) become aliases; in place
    lifetimes   when each buffer lives
    arena       offsets of the buffers
    plan        table and parameter image; the Plan
"""

if __name__ != "litejit.planner":
    raise ImportError(f"import litejit.planner, not {__name__}: under two names every pass would exist twice")
