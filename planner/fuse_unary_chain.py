"""Rule "unary_chain": operators of one input, from 8-bit codes to 8-bit codes, become one table of 256 codes.

The table is what the operators themselves make of all codes, one after the other. In between there may be float32 where
NumPy's result is the kernel's to the last bit.
"""

from __future__ import annotations

import numpy as np

from litejit.ops.base import Target
from litejit.planner.graph import Node, Value
from litejit.planner.patterns import Uses, merged

CODES = ("i8", "u8")
TABLES = (  # by a table of codes that refuses none of them
    "ABS", "ELU", "EXP", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC", "TANH",
)  # fmt: skip
CLAMPS = ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1")
EXACT = (*CLAMPS, "ABS", "NEG", "FLOOR", "CEIL", "ROUND", "SQUARE", "SQRT")  # on float32
CHANGES = ("QUANTIZE", "DEQUANTIZE")
OPS = tuple(dict.fromkeys((*TABLES, *EXACT, *CHANGES)))


def fuse_unary_chains(uses: Uses, target: Target) -> list[str]:
    """Replace chains of two operators and more."""
    if target.mode == "ref":
        return []
    notes: list[str] = []
    done: set[int] = set()
    for node in list(uses.graph.nodes):
        if id(node) in done or node.op not in OPS or node[0].type not in CODES:
            continue
        chain = _chain(node, uses)
        done.update(map(id, chain))
        if len(chain) > 1:
            made = _replace(chain, uses)
            notes.append(f"nodes {', '.join(str(part.index) for part in chain)} into {made!r}")
    return notes


def _chain(node: Node, uses: Uses) -> list[Node]:
    """The longest chain from a node on that ends in codes."""
    chain: list[Node] = []
    whole = 0
    following: Node | None = node
    while following is not None and _tabulates(following):
        chain.append(following)
        whole = len(chain) if following.out.type in CODES else whole
        following = uses.user(following.out, *OPS)
    return chain[:whole]


def _tabulates(node: Node) -> bool:
    x, y = node[0], node.out
    if x.per_channel or y.per_channel or x.variable or y.variable or len(node.inputs) != 1:
        return False
    kinds = (x.type if x.type not in CODES else "code", y.type if y.type not in CODES else "code")
    if node.op in CHANGES:
        return kinds in (("code", "code"), ("code", "f32"), ("f32", "code"))
    return node.op in {("code", "code"): (*TABLES, *CLAMPS), ("f32", "f32"): EXACT}.get(kinds, ())


def _replace(chain: list[Node], uses: Uses) -> Node:
    from litejit.ops.tables import codes
    from litejit.ops.unary_chain import UNARY_CHAIN

    first = chain[0][0]
    numbers = codes(first).astype(first.dtype)
    for node in chain:
        numbers = _applied(node, numbers)
    made = merged("UNARY_CHAIN", UNARY_CHAIN, chain, (first,), table=np.ascontiguousarray(numbers))
    uses.replace(chain, made)
    return made


def _applied(node: Node, numbers: np.ndarray) -> np.ndarray:
    """What a node makes of numbers."""
    if node.op == "QUANTIZE" and numbers.dtype == np.float32:
        numbers = np.where(np.isnan(numbers), np.float32(-np.inf), numbers)  # the kernel gives the lowest code
    x, y = (
        Value(v.name, v.index, v.subgraph, v.type, numbers.shape, scales=v.scales, zero_points=v.zero_points, data=data)
        for v, data in ((node[0], numbers), (node.out, None))
    )
    twin = Node(node.op, node.operator, node.index, node.subgraph, (x,), (y,), node.options)
    twin.xnn = node.xnn
    with np.errstate(all="ignore"):
        (made,) = node.operator.fold(twin)
    return np.ascontiguousarray(made, y.dtype)
