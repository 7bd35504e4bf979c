"""Rule "layer_norm": the operators that spell out a layer normalisation along the last axis become one step.

Converters write (x - mean) * gamma / sqrt(variance + epsilon) + beta in many orders. So values are followed symbolically,
as sums of terms c * p * s, where c is a constant (a number, or one per column), p is 1, x or the mean, and s is 1 or
1 / sqrt(variance + epsilon). A value that is g * x * s - g * mean * s + b is a layer normalisation, however it came about.
An ADD in front of it (the residual) becomes a part of the step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from litejit.ops.arithmetic import activation
from litejit.ops.base import Target
from litejit.planner.graph import Node, Value
from litejit.planner.patterns import Uses, merged, scalar

Term = tuple[str, int]  # ("", "x" or "mean"; power of s)
Form = dict[Term, Any]  # term -> coefficient: float or float64 [n]
AWAY = ({("x", 0): 1.0, ("mean", 0): -1.0}, {("x", 0): -1.0, ("mean", 0): 1.0})
SQUARE, VARIANCE, ROOT = "square", "variance", "root"


def fuse_layer_norm(uses: Uses, target: Target) -> list[str]:
    """Replace every layer normalisation that nobody looks into."""
    if target.mode == "ref":
        return []
    notes = []
    places = {id(node): i for i, node in enumerate(uses.graph.nodes)}
    for node in list(uses.graph.nodes):
        if node.op == "MEAN" and _along_rows(node) and node[0].dims[-1] > 1:
            found = _Search(node, uses, places).found()
            if found is not None:
                last, made = found
                places[id(made)] = places[id(last)]
                notes.append(f"nodes {', '.join(str(part.split()[1]) for part in made.notes)} into {made!r}")
    return notes


def _along_rows(node: Node) -> bool:
    """The mean of float32 over the last axis, which stays as an axis of length 1."""
    x, axes = node[0], node[1].data
    return bool(
        x.type == "f32"
        and axes is not None
        and axes.size == 1
        and x.rank >= 1
        and int(axes.reshape(-1)[0]) % x.rank == x.rank - 1
        and node.out.dims == (*x.dims[:-1], 1)
    )


class _Search:
    """What the values behind a mean are, in terms of x, its mean and the scale."""

    def __init__(self, mean: Node, uses: Uses, places: dict[int, int]) -> None:
        self.mean, self.uses, self.places = mean, uses, places
        self.x = mean[0]
        self.epsilon: float | None = None
        self.forms: dict[Value, Any] = {self.x: {("x", 0): 1.0}, mean.out: {("mean", 0): 1.0}}
        self.nodes = [mean]

    def found(self) -> tuple[Node, Node] | None:
        """Replace the longest chain that makes a layer normalisation: (its last node, the new node)."""
        seen = {id(self.mean)}
        waiting = [n for v in (self.x, self.mean.out) for n in self.uses.users.get(v, ())]
        ends = []
        while waiting:
            node = min(waiting, key=lambda n: self.places[id(n)])
            waiting = [n for n in waiting if n is not node]
            form = None if id(node) in seen else self._form(node)
            seen.add(id(node))
            if form is None:
                continue
            self.forms[node.out] = form
            self.nodes.append(node)
            waiting += self.uses.users.get(node.out, ())
            if isinstance(form, dict) and _affine(form) is not None and node.out.dims == self.x.dims:
                ends.append(node)
        for end in reversed(ends):
            parts = self._parts(end)
            if parts is not None:
                return end, self._replace(parts, end)
        return None

    # ---- values ----
    def _form(self, node: Node) -> Any:
        """The form of a node's output, or SQUARE, VARIANCE, ROOT; None where it is nothing of the kind."""
        if len(node.outputs) != 1 or node.out.variable or node.out.type != "f32" or activation(node) != "NONE":
            return None
        if node.out.dims not in (self.x.dims, self.mean.out.dims):
            return None
        if node.op == "MEAN":
            return VARIANCE if self.forms.get(node[0]) == SQUARE and _along_rows(node) else None
        given = [self._operand(v) for v in node.inputs]
        rule = _RULES.get((node.op, len(given)))
        return None if rule is None or any(g is None for g in given) else rule(self, *given)

    def _operand(self, value: Value | None) -> Any:
        if value in self.forms:
            return self.forms[value]
        if value is None or value.data is None or value.type != "f32":
            return None
        if scalar(value) is not None:
            return {("", 0): scalar(value)}
        n = self.x.dims[-1]
        return {("", 0): value.data.astype(np.float64).reshape(-1)} if value.dims[-1] == value.size == n else None

    def _sum(self, a: Any, b: Any, sign: float = 1.0) -> Any:
        if isinstance(a, dict) and isinstance(b, dict):
            return {t: a.get(t, 0.0) + sign * b.get(t, 0.0) for t in (*a, *(t for t in b if t not in a))}
        form, other = (b, a) if isinstance(a, dict) else (a, b)
        number = other.get(("", 0)) if isinstance(other, dict) and len(other) == 1 else None
        if form == VARIANCE and sign > 0 and isinstance(number, float) and self.epsilon is None:
            self.epsilon = number
            return VARIANCE
        return None

    def _difference(self, a: Any, b: Any) -> Any:
        return self._sum(a, b, -1.0)

    def _product(self, a: Any, b: Any) -> Any:
        if not (isinstance(a, dict) and isinstance(b, dict)):
            return None
        if a is b and _is_away(a):
            return SQUARE
        made: Form = {}
        for (p, s), c in a.items():
            for (q, t), d in b.items():
                if (p and q) or s + t > 1:
                    return None
                made[p or q, s + t] = made.get((p or q, s + t), 0.0) + c * d
        return made

    def _quotient(self, a: Any, b: Any) -> Any:
        return self._product(a, {("", 1): 1.0}) if b == ROOT else None

    def _squared_difference(self, a: Any, b: Any) -> Any:
        return SQUARE if isinstance(a, dict) and isinstance(b, dict) and _is_away(self._difference(a, b)) else None

    # ---- the end ----
    def _parts(self, end: Node) -> list[Node] | None:
        """The nodes that lead from x to `end`, in order; None where another one reads what they make."""
        needed = {end.out}
        parts = []
        for node in reversed(self.nodes):
            if node.out in needed and self.places[id(node)] <= self.places[id(end)]:
                parts.append(node)
                needed.update(v for v in node.inputs if v in self.forms and v is not self.x)
        inside = {id(node) for node in parts}
        for node in parts:
            users = self.uses.users.get(node.out, ())
            if node is not end and (node.out in self.uses.kept or any(id(n) not in inside for n in users)):
                return None
        return parts[::-1]

    def _replace(self, parts: list[Node], end: Node) -> Node:
        from litejit.ops.layer_norm import LAYER_NORM

        made = _affine(self.forms[end.out])
        assert made is not None
        n = self.x.dims[-1]
        gamma, beta = (np.broadcast_to(np.asarray(c, np.float32), (n,)) for c in made)
        residual, shared = self._residual(parts, end)
        gone = [*([residual] if residual else []), *parts]
        inputs = residual.inputs if residual else (self.x,)
        node = merged("LAYER_NORM", LAYER_NORM, gone, inputs, gamma=gamma, beta=beta, epsilon=self.epsilon or 0.0)
        if shared:
            node.outputs = (end.out, self.x)
        self.uses.replace(gone, node)
        return node

    def _residual(self, parts: list[Node], end: Node) -> tuple[Node | None, bool]:
        """The ADD that makes x, if it can move behind the other parts; whether others read x."""
        add, x = self.uses.maker(self.x, "ADD"), self.x
        if add is None or x.variable or activation(add) != "NONE":
            return None, False
        if any(v is None or v.type != "f32" or v.variable or v.size != x.size for v in add.inputs):
            return None, False
        inside = {id(node) for node in parts}
        others = [n for n in self.uses.users[x] if id(n) not in inside]
        if any(self.places[id(n)] < self.places[id(end)] for n in others):
            return None, False
        return add, bool(others) or x in self.uses.kept


def _is_away(form: Any) -> bool:
    """x - mean, or mean - x."""
    return isinstance(form, dict) and any(
        set(form) == set(away) and all(isinstance(form[t], float) and form[t] == away[t] for t in away) for away in AWAY
    )


def _affine(form: Form) -> tuple[Any, Any] | None:
    """(g, b) of a form g * x * s - g * mean * s + b."""
    terms = {t: c for t, c in form.items() if np.any(c)}
    beta = terms.pop(("", 0), 0.0)
    if set(terms) != {("x", 1), ("mean", 1)} or np.any(terms["x", 1] + terms["mean", 1]):
        return None
    return terms["x", 1], beta


_RULES: dict[tuple[str, int], Any] = {
    ("ADD", 2): _Search._sum,
    ("SUB", 2): _Search._difference,
    ("MUL", 2): _Search._product,
    ("DIV", 2): _Search._quotient,
    ("NEG", 1): lambda search, a: search._product(a, {("", 0): -1.0}),
    ("SQUARE", 1): lambda search, a: SQUARE if _is_away(a) else None,
    ("SQUARED_DIFFERENCE", 2): _Search._squared_difference,
    ("SQRT", 1): lambda search, a: ROOT if a == VARIANCE else None,
    ("RSQRT", 1): lambda search, a: {("", 1): 1.0} if a == VARIANCE else None,
}
