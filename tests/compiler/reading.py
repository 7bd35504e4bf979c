"""Reading LLVM's assembly text: instructions, innermost loops, registers saved on the stack, names that are called."""
from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

LABEL = re.compile(r"^(\.?[\w.$]+):")
JUMP = re.compile(r"^(?:j\w+|b|b\.\w+|cbn?z|tbn?z)$")
CALL = re.compile(r"^(?:callq?|bl)$")
FOREIGN = re.compile(r"([\w.$]+)@(?:PLT|GOT\w*)|:got(?:_lo12)?:([\w.$]+)")
ON_STACK = re.compile(r"\(%[re]sp\)|\[sp\b")                # x86 locals; this code has no frame pointers for locals
VECTOR = re.compile(r"%[xyz]mm\d+|\b[qv]\d+\b")


class Line(NamedTuple):
    """An instruction: mnemonic, operands as they are written."""

    name: str
    operands: str

    def spills(self) -> bool:
        """Whether a vector register goes to, or comes from, the stack."""
        return bool(ON_STACK.search(self.operands) and VECTOR.search(self.operands))


class Code:
    """The instructions of a function and the loops among them."""

    def __init__(self, text: str) -> None:
        self.lines: list[Line] = []
        self.foreign: set[str] = set()          # functions and data that others must define
        places: dict[str, int] = {}
        for raw in text.splitlines():
            label = LABEL.match(raw)
            if label:
                places[label[1]] = len(self.lines)
            elif raw.startswith("\t") and not raw.startswith("\t."):
                fields = raw.split()
                words = 2 if fields[0].startswith("{") else 1           # a prefix: {vex} vpdpbusd
                self.lines.append(Line(" ".join(fields[:words]), " ".join(fields[words:])))
        for line in self.lines:
            self.foreign.update(name or other for name, other in FOREIGN.findall(line.operands))
            if CALL.match(line.name) and line.operands[0] not in "*%":
                self.foreign.add(line.operands.split("@")[0])
        self.foreign -= places.keys()
        back = [(places[target], at + 1) for at, line in enumerate(self.lines)
                if JUMP.match(line.name) and (target := line.operands.split(",")[-1].strip()) in places
                and places[target] <= at]
        self.loops = [self.lines[a:b] for a, b in back
                      if not any((a, b) != (c, d) and a <= c and d <= b for c, d in back)]

    def hot(self, name: str) -> list[Line]:
        """The innermost loop that has the most instructions `name` (a regular expression); [] if none has one."""
        return max(self.loops, key=lambda loop: count(loop, name), default=[])

    def names(self) -> Counter[str]:
        """How often each mnemonic occurs."""
        return Counter(line.name for line in self.lines)


def count(lines: list[Line], pattern: str) -> int:
    """Instructions whose text, "name operands", matches."""
    wanted = re.compile(pattern)
    return sum(bool(wanted.search(f"{line.name} {line.operands}")) for line in lines)


def spills(lines: list[Line]) -> int:
    """Moves of vector registers to and from the stack."""
    return sum(line.spills() for line in lines)
