"""Rule "layer_norm": the operators that spell out a layer normalisation along the last axis become one step.

Converters write (x - mean) * gamma / sqrt(variance + epsilon) + beta in many orders. So values are followed symbolically,
as sums of terms c * p * s: c is a constant (a number, or one per column), p is 1, x or a statistic of its row, and s is 1
or the scale 1 / sqrt(variance + epsilon). A value that is g * x * s - g * mean * s + b is a layer normalisation, however
it came about; g * x * s + b, where s is made of the mean of x^2, is the one without a mean (RMS normalisation). An ADD in
front of it (the residual) becomes a part of the step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from litejit.ops.arithmetic import activation
from litejit.ops.base import Target
from litejit.planner.graph import Node, Value
from litejit.planner.patterns import Uses, merged, scalar

Term = tuple[str, int]  # (p, power of s)
Form = dict[Term, Any]  # term -> coefficient: float or float64 [n]
X, MEAN, NUMBER, SCALE, ROOT = ("x", 0), ("mean", 0), ("", 0), ("", 1), ("root", 0)
DEVIATION, POWER = ("(x - mean)^2", 0), ("x^2", 0)
MEANS = {X: MEAN, DEVIATION: ("variance", 0), POWER: ("mean of x^2", 0)}  # what the mean of a row of it is
VIEWS = ("RESHAPE", "EXPAND_DIMS", "SQUEEZE")
CLOSE = 1e-6  # coefficients that differ by roundings


def fuse_layer_norm(uses: Uses, target: Target) -> list[str]:
    """Replace every layer normalisation that nobody looks into."""
    if target.mode == "ref":
        return []
    notes = []
    places = {id(node): i for i, node in enumerate(uses.graph.nodes)}
    tried = set()
    for node in list(uses.graph.nodes):
        x = _normalised(node, uses)
        if x is None or x in tried or x.variable:  # what stands between might change a variable
            continue
        tried.add(x)
        found = _Search(x, uses, places).found()
        if found is not None:
            tried.discard(x)  # which may be normalised twice
            last, made = found
            places[id(made)] = places[id(last)]
            notes.append(f"nodes {', '.join(part.split()[1] for part in made.notes)} into {made!r}")
    return notes


def _normalised(node: Node, uses: Uses) -> Value | None:
    """What may be normalised by means of a node that adds up rows: its input, or what that is the square of."""
    if node.op not in ("MEAN", "SUM") or not _along_rows(node):
        return None
    square = uses.maker(node[0], "SQUARE", "MUL")
    if square is not None and square[0] is square.inputs[-1] and uses.maker(square[0], "SUB") is None:
        return square[0]
    return node[0]


def _along_rows(node: Node) -> bool:
    """A sum or mean of float32 over the last axis, of more than one element."""
    x, axes = node[0], node[1].data
    return bool(
        x.type == "f32"
        and axes is not None
        and axes.size == 1
        and x.rank >= 1
        and int(axes.reshape(-1)[0]) % x.rank == x.rank - 1
        and x.dims[-1] > 1
    )


class _Search:
    """What the values behind x are, in terms of x, its mean and the scale."""

    def __init__(self, x: Value, uses: Uses, places: dict[int, int]) -> None:
        self.x, self.uses, self.places = x, uses, places
        self.n = x.dims[-1]
        self.shapes = (x.dims, (*x.dims[:-1], 1), x.dims[:-1])  # of x, and of numbers per row
        self.scale: tuple[Term, float] | None = None  # what s is made of: variance or mean of x^2; epsilon
        self.forms: dict[Value, Form] = {x: {X: 1.0}}
        self.nodes: list[Node] = []

    def found(self) -> tuple[Node, Node] | None:
        """Replace the longest chain that makes a layer normalisation: (its last node, the new node)."""
        seen: set[int] = set()
        waiting = list(self.uses.users.get(self.x, ()))
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
            if self._affine(form) is not None and node.out.dims == self.x.dims:
                ends.append(node)
        for end in reversed(ends):
            parts = self._parts(end)
            if parts is not None:
                return end, self._replace(parts, end)
        return None

    # ---- values ----
    def _form(self, node: Node) -> Form | None:
        """The form of a node's output; None where it is no such sum."""
        if len(node.outputs) != 1 or node.out.variable or node.out.type != "f32" or activation(node) != "NONE":
            return None
        dims = node.out.dims
        if dims not in self.shapes:
            return None
        if node.op in VIEWS:
            return self.forms.get(node[0]) if node[0].dims != self.x.dims != dims else None
        if node.op in ("MEAN", "SUM"):
            return self._mean(node)
        given = [self._operand(v, dims) for v in node.inputs]
        rule = _RULES.get((node.op, len(given)))
        return None if rule is None or any(g is None for g in given) else rule(self, *given)

    def _operand(self, value: Value | None, dims: tuple[int, ...]) -> Form | None:
        if value is None:
            return None
        if value in self.forms:
            fits = value.dims == dims or (value.dims == self.shapes[1] and dims == self.x.dims)
            return self.forms[value] if fits else None
        if value.data is None or value.type != "f32":
            return None
        if scalar(value) is not None:
            return {NUMBER: scalar(value)}
        return {NUMBER: value.data.astype(np.float64).reshape(-1)} if value.dims[-1] == value.size == self.n else None

    def _mean(self, node: Node) -> Form | None:
        form = self.forms.get(node[0])
        if form is None or not _along_rows(node) or node[0].dims != self.x.dims or len(form) != 1:
            return None
        ((term, c),) = form.items()
        if term not in MEANS or np.ndim(c):
            return None
        return {MEANS[term]: c * (self.n if node.op == "SUM" else 1)}

    def _sum(self, a: Form, b: Form, sign: float = 1.0) -> Form:
        return {t: a.get(t, 0.0) + sign * b.get(t, 0.0) for t in (*a, *(t for t in b if t not in a))}

    def _difference(self, a: Form, b: Form) -> Form:
        return self._sum(a, b, -1.0)

    def _product(self, a: Form, b: Form) -> Form | None:
        if a is b and self._square(a):
            return self._square(a)
        made: Form = {}
        for (p, s), c in a.items():
            for (q, t), d in b.items():
                if (p and q) or s + t > 1:
                    return None
                made[p or q, s + t] = made.get((p or q, s + t), 0.0) + c * d
        return made

    def _quotient(self, a: Form, b: Form) -> Form | None:
        if set(b) == {NUMBER} and np.all(b[NUMBER]):
            return self._product(a, {NUMBER: 1 / b[NUMBER]})
        return self._product(a, {SCALE: 1.0}) if b == {ROOT: 1.0} else None

    def _square(self, a: Form) -> Form | None:
        """The square of x, or of its distance from the mean."""
        if _is(a, {X: 1.0}):
            return {POWER: 1.0}
        return {DEVIATION: 1.0} if _is(a, {X: 1.0, MEAN: -1.0}) or _is(a, {X: -1.0, MEAN: 1.0}) else None

    def _power(self, a: Form, b: Form) -> Form | None:
        return self._square(a) if _is(b, {NUMBER: 2.0}) else None

    def _root(self, a: Form, made: Term) -> Form | None:
        """The root of variance + epsilon, or one over it."""
        epsilon = a.get(NUMBER, 0.0)
        terms = [t for t in a if t != NUMBER]
        if len(terms) != 1 or terms[0] not in (MEANS[DEVIATION], MEANS[POWER]) or np.ndim(epsilon):
            return None
        scale = (terms[0], float(epsilon))
        if not _is({terms[0]: a[terms[0]]}, {terms[0]: 1.0}) or self.scale not in (None, scale):
            return None
        self.scale = scale
        return {made: 1.0}

    def _affine(self, form: Form) -> tuple[Any, Any] | None:
        """(g, b) of a form g * x * s - g * mean * s + b, or without the mean where s is made of x^2."""
        if ("x", 1) not in form or self.scale is None:
            return None
        terms = {t: c for t, c in form.items() if np.any(c)}
        beta, gamma, other = terms.pop(NUMBER, 0.0), terms.pop(("x", 1), None), terms.pop(("mean", 1), 0.0)
        if gamma is None or terms:
            return None
        wanted = -gamma if self.scale[0] == MEANS[DEVIATION] else 0.0
        return (gamma, beta) if np.allclose(other, wanted, rtol=CLOSE, atol=0) else None

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

        made = self._affine(self.forms[end.out])
        assert made is not None and self.scale is not None
        gamma, beta = (np.broadcast_to(np.asarray(c, np.float32), (self.n,)) for c in made)
        statistic, epsilon = self.scale
        residual, shared = self._residual(parts, end)
        gone = [*([residual] if residual else []), *parts]
        inputs = residual.inputs if residual else (self.x,)
        op = "LAYER_NORM" if statistic == MEANS[DEVIATION] else "RMS_NORM"
        node = merged(op, LAYER_NORM, gone, inputs, gamma=gamma, beta=beta, epsilon=epsilon, centred=op == "LAYER_NORM")
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


def _is(form: Form, wanted: Form) -> bool:
    """Whether these are the terms of a form, up to roundings."""
    return set(form) == set(wanted) and all(
        not np.ndim(form[t]) and abs(form[t] - c) <= CLOSE * abs(c) for t, c in wanted.items()
    )


_RULES: dict[tuple[str, int], Any] = {
    ("ADD", 2): _Search._sum,
    ("SUB", 2): _Search._difference,
    ("MUL", 2): _Search._product,
    ("DIV", 2): _Search._quotient,
    ("NEG", 1): lambda search, a: search._product(a, {NUMBER: -1.0}),
    ("SQUARE", 1): _Search._square,
    ("POW", 2): _Search._power,
    ("SQUARED_DIFFERENCE", 2): lambda search, a, b: search._square(search._difference(a, b)),
    ("SQRT", 1): lambda search, a: search._root(a, ROOT),
    ("RSQRT", 1): lambda search, a: search._root(a, SCALE),
}
