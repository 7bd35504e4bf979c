"""Rule "unary_chain": operators of one input, from 8-bit codes to 8-bit codes, become one table of 256 codes.

The table is what the operators themselves make of all codes, one after the other. In between there may be float32 where
NumPy's result is the kernel's to the last bit; and sums and products of what the chain begins with and what it has made, as
x * LOGISTIC(x), in XNNPACK's arithmetic (XNNPACK makes tables of these as well).
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
PAIRS = ("ADD", "SUB", "MUL")
OPS = tuple(dict.fromkeys((*TABLES, *EXACT, *CHANGES, *PAIRS)))


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
    first, whole = node[0], 0
    following: Node | None = node
    while following is not None and _tabulates(following, (first, chain[-1].out if chain else first)):
        chain.append(following)
        whole = len(chain) if following.out.type in CODES else whole
        following = _only_user(following.out, uses)
    return chain[:whole]


def _only_user(value: Value, uses: Uses) -> Node | None:
    """The node that reads a value, once or twice, where there is no other."""
    users = list(uses.users.get(value, ()))
    if not users or any(user is not users[0] for user in users) or not uses.private(value, len(users)):
        return None
    return users[0] if users[0].op in OPS else None


def _tabulates(node: Node, known: tuple[Value, Value]) -> bool:
    """known: what the chain begins with, and what it has made."""
    y = node.out
    if any(v not in known for v in node.inputs) or any(v is None or v.per_channel or v.variable for v in (*node.inputs, y)):
        return False
    if node.op in PAIRS:
        return node.xnn and node[0].type in CODES
    kinds = ("code" if node[0].type in CODES else node[0].type, "code" if y.type in CODES else y.type)
    if node.op in CHANGES:
        return kinds in (("code", "code"), ("code", "f32"), ("f32", "code"))
    return node.op in {("code", "code"): (*TABLES, *CLAMPS), ("f32", "f32"): EXACT}.get(kinds, ())


def _replace(chain: list[Node], uses: Uses) -> Node:
    from litejit.ops.tables import codes
    from litejit.ops.unary_chain import UNARY_CHAIN

    first = chain[0][0]
    numbers = {first: codes(first).astype(first.dtype)}
    for node in chain:
        numbers[node.out] = _applied(node, numbers)
    made = merged("UNARY_CHAIN", UNARY_CHAIN, chain, (first,), table=np.ascontiguousarray(numbers[chain[-1].out]))
    uses.replace(chain, made)
    return made


def _applied(node: Node, numbers: dict[Value, np.ndarray]) -> np.ndarray:
    """What a node makes of the numbers of its inputs."""
    from litejit.ops.binary_quantised import xnn_codes

    given = numbers[node[0]]
    if node.op in PAIRS:
        return xnn_codes(node, given, numbers[node[1]], square=len(numbers) == 1)
    if node.op == "QUANTIZE" and given.dtype == np.float32:
        given = np.where(np.isnan(given), np.float32(-np.inf), given)  # the kernel gives the lowest code
    x, y = (
        Value(v.name, v.index, v.subgraph, v.type, given.shape, scales=v.scales, zero_points=v.zero_points, data=data)
        for v, data in ((node[0], given), (node.out, None))
    )
    twin = Node(node.op, node.operator, node.index, node.subgraph, (x,), (y,), node.options)
    twin.xnn = node.xnn
    with np.errstate(all="ignore"):
        (made,) = node.operator.fold(twin)
    return np.ascontiguousarray(made, y.dtype)
