"""Rule "float_chain": float32 operators of single elements that read each other's results are one step, block by block.

Measured on a core of Zen 4 (32 KiB and 1 MiB of its own) on chains and trees of two to nine operators. Up to 2000 elements
nothing changed by more than the clock can tell; 4000 elements took up to 15 % less time (at worst 5 % more), 256,000 5 to 33 %,
4 million 23 to 60 %. MTCNN's first network, where PRELU is spelled out, took 25 % less. Sums of many large tensors took up to
four times as long, until `_saves` and `_longer` refused them: from memory a core reads one tensor faster than several in turns.
"""

from __future__ import annotations

from litejit.ops.base import Target
from litejit.planner.graph import Node, Value
from litejit.planner.patterns import Uses, merged

UNARY = (
    "ABS", "NEG", "SQUARE", "SQRT", "RSQRT", "EXP", "LOG", "FLOOR", "CEIL", "ROUND", "SIGN", "TANH", "LOGISTIC", "GELU", "ELU",
    "HARD_SWISH", "SWISH", "RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "LEAKY_RELU",
)  # fmt: skip
BINARY = ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "POW")
WORTH = 4096  # least elements, times operators: below, a kernel more to compile buys nothing
STREAMED = 2 << 20  # bytes of what a chain reads and writes, from which on it is large
FEW, SEVERAL = 3, 5  # tensors that a large chain may have whatever it saves, and at all
LONGEST, PLACES = 64, 3  # most nodes of a chain, and most values between them at a time
OPS = (*UNARY, *BINARY)  # not SIN and COS, whose last bits depend on what else is in a block


def fuse_float_chains(uses: Uses, target: Target) -> list[str]:
    """Replace chains of two operators and more; the numbers stay the same."""
    if target.mode == "ref":
        return []
    from litejit.ops.float_chain import FLOAT_CHAIN

    notes: list[str] = []
    done: set[int] = set()
    nodes = list(uses.graph.nodes)
    others = _others(nodes)
    for node in reversed(nodes):
        if id(node) in done or not _takes(node):
            continue
        chain = _leading(node, uses, others)
        small = len(chain) * node.out.size < WORTH
        if not small and not _saves(chain):
            continue
        done.update(map(id, chain))
        if len(chain) > 1 and not small:
            made = merged("FLOAT_CHAIN", FLOAT_CHAIN, chain, _inputs(chain), chain=chain)
            uses.replace(chain, made)
            notes.append(f"{', '.join(made.notes)} into {made!r}")
    return notes[::-1]


def _saves(chain: list[Node]) -> bool:
    """Whether a chain of more than a few large tensors saves half of what its operators would read and write on their own."""
    size, streams = chain[0].out.size, _streams(chain)
    apart = sum(1 + sum(v is not None and v.size == size for v in node.inputs) for node in chain)
    return streams <= FEW or not _large(chain) or apart >= 2 * streams


def _leading(end: Node, uses: Uses, others: dict[int, int]) -> list[Node]:
    """The nodes that lead to a node and whose results no other node needs, in the order in which they are to run."""
    chain = [end]
    while len(chain) < LONGEST:
        more = next(filter(None, (_longer(chain, value, uses, others) for value in _inputs(chain))), None)
        if more is None:
            break
        chain = more
    return chain


def _longer(chain: list[Node], value: Value, uses: Uses, others: dict[int, int]) -> list[Node] | None:
    """The chain with the node that makes one of its inputs, if that may be one of it."""
    from litejit.ops.float_chain import slots_of

    node, end = uses.maker(value, *OPS), chain[-1]
    if node is None or not _takes(node) or value.size != end.out.size or not _only(uses, value, chain):
        return None
    more = _ordered(end, [node, *chain])
    if others[id(node)] != others[id(end)] and _kept(more) > _kept(chain):
        return None
    if _streams(more) > SEVERAL and _large(more):
        return None
    return more if max(slots_of(more).values()) < PLACES else None


def _only(uses: Uses, value: Value, chain: list[Node]) -> bool:
    """Whether nobody but the nodes of a chain reads a value."""
    users = uses.users[value]
    return uses.private(value, len(users)) and all(any(user is node for node in chain) for user in users)


def _ordered(end: Node, nodes: list[Node]) -> list[Node]:
    """The nodes, each as late as it can be: what is between them is not kept for long."""
    left = {node.out: node for node in nodes}
    found: list[Node] = []

    def visit(node: Node) -> None:
        for value in node.inputs:
            if value in left:
                visit(left.pop(value))
        found.append(node)

    visit(left.pop(end.out))
    return found


def _takes(node: Node) -> bool:
    """An operator of the table on float32."""
    values = (*node.inputs, *node.outputs)
    return node.op in OPS and node.out.size > 0 and all(v is not None and v.type == "f32" and not v.variable for v in values)


def _others(nodes: list[Node]) -> dict[int, int]:
    """How many operators that are not in the table run before each node."""
    found, count = {}, 0
    for node in nodes:
        found[id(node)] = count
        count += node.op not in OPS
    return found


def _kept(chain: list[Node]) -> int:
    """How many tensors as large as the chain's stay in memory until it runs, where it runs later than its first node did."""
    return sum(v.data is None and v.size == chain[0].out.size for v in _inputs(chain))


def _streams(chain: list[Node]) -> int:
    """How many tensors as large as the chain's it reads and writes."""
    return 1 + sum(v.size == chain[0].out.size for v in _inputs(chain))


def _large(chain: list[Node]) -> bool:
    return _streams(chain) * chain[0].out.nbytes > STREAMED


def _inputs(chain: list[Node]) -> list[Value]:
    """What the nodes read and none of them makes, each once."""
    made = {node.out for node in chain}
    return list(dict.fromkeys(v for node in chain for v in node.inputs if v is not None and v not in made))
