"""Links relocatable x86-64 ELF objects into a shared library, in Python.

LLVM's `emit_object` gives relocatable objects; dlopen wants a shared library. `link_shared` covers what position
independent objects of the small code model contain and raises LinkError for everything else. With it, compiled
kernels are loaded without a compiler, an assembler, a linker, Numba or llvmlite.

The library has three segments behind its tables: constants (read), code (read, execute), data (read, write). Virtual
addresses equal file offsets. Unwind tables are dropped: kernels raise nothing.

Source of the layouts and numbers: System V ABI, chapters 4 and 5, and its AMD64 supplement, 4.4.
"""
from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

PAGE = 4096
WRITE, ALLOCATE, EXECUTE, TLS = 1, 2, 4, 0x400                              # section flags
NOBITS, SYMTAB, RELA, INIT_ARRAY = 8, 2, 4, 14                              # section types
UNDEFINED, ABSOLUTE, COMMON = 0, 0xFFF1, 0xFFF2                             # special section indices
ABS64, PC32, PLT32, GOTPCREL, PC64, GOTPCRELX, REX_GOTPCRELX = 1, 2, 4, 9, 24, 41, 42
THROUGH_GOT = (GOTPCREL, GOTPCRELX, REX_GOTPCRELX)
DYN_64, DYN_GLOB_DAT, DYN_RELATIVE = 1, 6, 8                                # relocations left to the loader
STRONG, WEAK, TENTATIVE = 0, 1, 2                                           # rank of a definition, best first
CONSTANTS, CODE, DATA, EXTERNAL = "constants", "code", "data", "external"
# A memcpy without a version binds to glibc's oldest, which does not know today's CPUs; memmove has one version only.
OTHER_NAMES = {"memcpy": "memmove"}
PYTHON_NAMES = ("Py", "_Py", "NRT_", "numba_")                              # no kernel may need these


class LinkError(Exception):
    """The objects contain something that this linker does not do, or need something that a kernel must not need."""


class Section(NamedTuple):
    """A section of an object file."""

    name: str
    type: int
    flags: int
    data: bytes
    size: int
    align: int
    relocations: list[tuple[int, int, int]]         # offset, symbol << 32 | type, addend

    @property
    def segment(self) -> str | None:
        """The segment it goes to; None if it is not loaded."""
        if not self.flags & ALLOCATE or self.name.startswith(".eh_frame") or not self.size:
            return None
        return CODE if self.flags & EXECUTE else DATA if self.flags & WRITE else CONSTANTS


class Symbol(NamedTuple):
    """A symbol of an object file."""

    name: str
    bind: int                                       # 0 local, 1 global, 2 weak
    section: int
    value: int
    size: int


class Place(NamedTuple):
    """A spot in the library: a segment and an offset, or an external symbol by name."""

    segment: str
    offset: int
    name: str = ""


class Fix(NamedTuple):
    """A relocation to be applied once addresses are known."""

    segment: str
    offset: int
    type: int
    target: Place
    addend: int


# ---- reading -------------------------------------------------------------------------------------

def _text(table: bytes, offset: int) -> str:
    return table[offset:table.index(b"\0", offset)].decode()


def read_object(data: bytes) -> tuple[list[Section], list[Symbol]]:
    """Sections and symbols of a relocatable x86-64 object."""
    if data[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<HH", data, 16) != (1, 62):
        raise LinkError("not a relocatable x86-64 ELF object")
    table, = struct.unpack_from("<Q", data, 40)
    entry_size, count, names_index = struct.unpack_from("<HHH", data, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, table + i * entry_size) for i in range(count)]
    contents = [b"" if h[1] == NOBITS else data[h[4]:h[4] + h[5]] for h in headers]
    sections = [Section(_text(contents[names_index], h[0]), h[1], h[2], content, h[5], max(h[8], 1), [])
                for h, content in zip(headers, contents)]
    symbols: list[Symbol] = []
    for header, content in zip(headers, contents):
        if header[1] == SYMTAB:
            strings = contents[header[6]]
            symbols += [Symbol(_text(strings, name), info >> 4, section, value, size)
                        for name, info, _, section, value, size in struct.iter_unpack("<IBBHQQ", content)]
        elif header[1] == RELA:
            sections[header[7]].relocations.extend(struct.iter_unpack("<QQq", content))
    for section in sections:
        if section.flags & TLS or section.type == INIT_ARRAY:
            raise LinkError(f"section {section.name} is not supported")
    return sections, symbols


def undefined(objects: Iterable[bytes]) -> set[str]:
    """Names that the objects need from outside (libm, memcpy, ...)."""
    needed: set[str] = set()
    defined: set[str] = set()
    for data in objects:
        for symbol in read_object(data)[1]:
            if symbol.bind:
                (needed if symbol.section == UNDEFINED else defined).add(symbol.name)
    return needed - defined


# ---- linking -------------------------------------------------------------------------------------

class _Linker:
    """The state of one link: segments that grow, where everything is, what is still to be fixed."""

    def __init__(self, objects: Iterable[bytes]) -> None:
        self.objects = [read_object(data) for data in objects]
        self.segments = {CONSTANTS: bytearray(), CODE: bytearray(), DATA: bytearray()}
        self.placed: dict[tuple[int, int], Place] = {}             # (object, section)
        self.defined: dict[str, tuple[int, Place, int]] = {}       # name -> rank, place, size
        self.external: dict[str, int] = {}                         # name -> index in the dynamic symbol table
        self.got: dict[Place, int] = {}                            # target -> slot
        self.plt: dict[Place, int] = {}                            # target -> stub
        self.fixes: list[Fix] = []

    def reserve(self, segment: str, size: int, align: int, content: bytes = b"") -> Place:
        """Room for `size` bytes, filled with `content`."""
        if align > PAGE:
            raise LinkError(f"alignment of {align} bytes is not supported")
        buffer = self.segments[segment]
        buffer.extend((b"\xcc" if segment == CODE else b"\0") * (-len(buffer) % align))     # 0xcc: trap
        place = Place(segment, len(buffer))
        buffer.extend(content.ljust(size, b"\0"))
        return place

    def place_sections(self) -> None:
        for number, (sections, _) in enumerate(self.objects):
            for index, section in enumerate(sections):
                if section.segment:
                    self.placed[number, index] = self.reserve(
                        section.segment, section.size, section.align, section.data)

    def define_symbols(self) -> None:
        """A strong definition wins over weak ones, the first weak one over others, those over tentative ones."""
        for number, (_, symbols) in enumerate(self.objects):
            for symbol in symbols:
                if symbol.bind and symbol.section != UNDEFINED:
                    self.define(number, symbol)
        for name, (rank, _, size) in self.defined.items():
            if rank == TENTATIVE:
                self.defined[name] = rank, self.reserve(DATA, max(size, 8), 16), size

    def define(self, number: int, symbol: Symbol) -> None:
        if symbol.section == COMMON:
            rank, place = TENTATIVE, Place(DATA, -1)
        elif (number, symbol.section) in self.placed:
            base = self.placed[number, symbol.section]
            rank, place = WEAK if symbol.bind == 2 else STRONG, Place(base.segment, base.offset + symbol.value)
        else:
            return                                                 # in a section that is not loaded
        old = self.defined.get(symbol.name)
        if old and old[0] == rank == STRONG:
            raise LinkError(f"symbol {symbol.name} is defined twice")
        if old is None or rank < old[0] or (rank == old[0] == TENTATIVE and symbol.size > old[2]):
            self.defined[symbol.name] = rank, place, symbol.size

    def find(self, number: int, symbol: Symbol) -> Place:
        """What a symbol of an object refers to."""
        if symbol.bind and symbol.name in self.defined:
            return self.defined[symbol.name][1]
        if symbol.section == UNDEFINED:
            if symbol.name.startswith(PYTHON_NAMES):
                raise LinkError(f"compiled code needs {symbol.name}: it allocates, raises or touches Python objects")
            name = OTHER_NAMES.get(symbol.name, symbol.name)
            self.external.setdefault(name, len(self.external) + 1)
            return Place(EXTERNAL, 0, name)
        if (number, symbol.section) not in self.placed:
            raise LinkError(f"symbol {symbol.name!r} is in section {symbol.section}, which is not loaded")
        base = self.placed[number, symbol.section]
        return Place(base.segment, base.offset + symbol.value)

    def collect_fixes(self) -> None:
        """One pass over the relocations: notes them, and which slots and stubs they need."""
        for (number, index), base in self.placed.items():
            sections, symbols = self.objects[number]
            for offset, info, addend in sections[index].relocations:
                kind, target = info & 0xFFFFFFFF, self.find(number, symbols[info >> 32])
                outside = target.segment == EXTERNAL
                if kind in THROUGH_GOT or (kind == PLT32 and outside):
                    self.got.setdefault(target, len(self.got))
                    if kind == PLT32:
                        self.plt.setdefault(target, len(self.plt))
                elif kind not in (ABS64, PC32, PLT32, PC64) or (kind in (PC32, PC64) and outside):
                    raise LinkError(f"relocation type {kind} against {target}")
                if kind == ABS64 and base.segment != DATA:
                    raise LinkError("an absolute address in a segment that is not writable")
                self.fixes.append(Fix(base.segment, base.offset + offset, kind, target, addend))

    def link(self, exports: Sequence[str] | None, needed: Sequence[str]) -> bytes:
        self.place_sections()
        self.define_symbols()
        self.collect_fixes()
        got = self.reserve(DATA, 8 * len(self.got), 8)
        plt = self.reserve(CODE, 8 * len(self.plt), 16)
        if exports is None:
            exports = [name for name, (_, place, _) in self.defined.items() if place.segment == CODE]
        for name in exports:
            if name not in self.defined:
                raise LinkError(f"no object defines {name}")
        dynamic = self.reserve(DATA, 16 * (len(needed) + 10), 16)
        absolute = sum(fix.type == ABS64 for fix in self.fixes)
        tables = _Tables(list(self.external), list(exports), needed, absolute + len(self.got))
        base = self.addresses(tables.end)
        relocations = self.apply(base, base[DATA] + got.offset, base[CODE] + plt.offset)
        symbols = [(base[place.segment] + place.offset, size)
                   for _, place, size in (self.defined[name] for name in exports)]
        at = base[DATA] + dynamic.offset
        entries = tables.dynamic()
        self.segments[DATA][dynamic.offset:dynamic.offset + len(entries)] = entries
        return self.image(tables, base, at, len(entries), tables.content(symbols, relocations))

    def addresses(self, end_of_tables: int) -> dict[str, int]:
        """Where each segment starts, in the file and in memory."""
        base, at = {}, end_of_tables
        for name, buffer in self.segments.items():
            base[name] = at = _round_up(at, PAGE)
            at += len(buffer)
        return base

    def apply(self, base: dict[str, int], got: int, plt: int) -> list[tuple[int, int, int]]:
        """Patches the segments; returns what is left to the loader as (address, symbol << 32 | type, addend)."""
        left: list[tuple[int, int, int]] = []

        def address(place: Place) -> int:
            return base[place.segment] + place.offset

        for target, slot in self.got.items():
            outside = target.segment == EXTERNAL
            left.append((got + 8 * slot, self.external[target.name] << 32 | DYN_GLOB_DAT, 0) if outside
                        else (got + 8 * slot, DYN_RELATIVE, address(target)))
        for target, stub in self.plt.items():                      # jmp *slot(%rip)
            at = plt + 8 * stub
            struct.pack_into("<BBi", self.segments[CODE], at - base[CODE], 0xFF, 0x25,
                             got + 8 * self.got[target] - (at + 6))
        for fix in self.fixes:
            here = base[fix.segment] + fix.offset
            outside = fix.target.segment == EXTERNAL
            if fix.type == ABS64:
                left.append((here, self.external[fix.target.name] << 32 | DYN_64, fix.addend) if outside
                            else (here, DYN_RELATIVE, address(fix.target) + fix.addend))
                continue
            value = (got + 8 * self.got[fix.target] if fix.type in THROUGH_GOT
                     else plt + 8 * self.plt[fix.target] if outside else address(fix.target))
            struct.pack_into("<q" if fix.type == PC64 else "<i", self.segments[fix.segment], fix.offset,
                             value + fix.addend - here)
        return left

    def image(self, tables: _Tables, base: dict[str, int], dynamic: int, dynamic_size: int, content: bytes) -> bytes:
        """The bytes of the library."""
        rights = {CONSTANTS: 4, CODE: 5, DATA: 6}
        headers = [(1, 4, 0, tables.end, PAGE)]                    # type, rights, offset, size, alignment
        headers += [(1, rights[name], base[name], len(buffer), PAGE)
                    for name, buffer in self.segments.items() if buffer]
        headers += [(2, 6, dynamic, dynamic_size, 16), (0x6474E551, 6, 0, 0, 16)]  # DYNAMIC, stack not executable
        out = bytearray(b"\x7fELF\x02\x01\x01".ljust(16, b"\0"))
        out += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, len(headers), 0, 0, 0)
        for kind, flags, offset, size, align in headers:
            out += struct.pack("<IIQQQQQQ", kind, flags, offset, offset, offset, size, size, align)
        out = out.ljust(_Tables.HEADERS, b"\0") + content
        for name, buffer in self.segments.items():
            out.extend(bytes(base[name] - len(out)))
            out += buffer
        return bytes(out)


class _Tables:
    """The tables that the loader reads: symbols, hash, relocations, strings; they follow the headers."""

    HEADERS = 64 + 6 * 56

    def __init__(self, external: list[str], exports: list[str], needed: Sequence[str], relocations: int) -> None:
        self.external, self.exports, self.needed, self.relocations = external, exports, needed, relocations
        names = external + exports
        self.strings = bytearray(b"\0")
        self.name_offsets = [self.string(name) for name in names]
        self.needed_offsets = [self.string(name) for name in needed]
        self.buckets = max(1, len(names) // 2)
        self.symbols_at = self.HEADERS
        self.hash_at = self.symbols_at + 24 * (1 + len(names))
        self.relocations_at = _round_up(self.hash_at + 4 * (2 + self.buckets + 1 + len(names)), 8)
        self.strings_at = self.relocations_at + 24 * relocations
        self.end = self.strings_at + len(self.strings)

    def string(self, name: str) -> int:
        at = len(self.strings)
        self.strings += name.encode() + b"\0"
        return at

    def content(self, symbols: list[tuple[int, int]], relocations: list[tuple[int, int, int]]) -> bytes:
        """The bytes from the end of the headers on; symbols: (address, size) of the exports."""
        out = bytearray(24)
        for i, offset in enumerate(self.name_offsets):
            inside = i >= len(self.external)
            address, size = symbols[i - len(self.external)] if inside else (0, 0)
            out += struct.pack("<IBBHQQ", offset, 0x12 if inside else 0x10, 0, int(inside), address, size)
        out += self.hash_table()
        out.extend(bytes(self.relocations_at - self.HEADERS - len(out)))
        for relocation in relocations:
            out += struct.pack("<QQq", *relocation)
        return bytes(out + self.strings)

    def hash_table(self) -> bytes:
        """System V ABI, 5: buckets and chains over symbol indices."""
        names = self.external + self.exports
        first, chain = [0] * self.buckets, [0] * (1 + len(names))
        for index, name in enumerate(names, 1):
            bucket = _hash(name) % self.buckets
            chain[index], first[bucket] = first[bucket], index
        return struct.pack(f"<{2 + len(first) + len(chain)}I", len(first), len(chain), *first, *chain)

    def dynamic(self) -> bytes:
        entries = [(1, offset) for offset in self.needed_offsets]
        entries += [(4, self.hash_at), (5, self.strings_at), (6, self.symbols_at), (10, len(self.strings)), (11, 24),
                    (7, self.relocations_at), (8, 24 * self.relocations), (9, 24), (24, 0), (0, 0)]
        return b"".join(struct.pack("<QQ", *entry) for entry in entries)


def _round_up(value: int, align: int) -> int:
    return (value + align - 1) & -align


def _hash(name: str) -> int:
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ (high >> 24)) & ~high & 0xFFFFFFFF
    return value


def link_shared(objects: Iterable[bytes], exports: Sequence[str] | None = None,
                needed: Sequence[str] = ("libm.so.6", "libc.so.6")) -> bytes:
    """Links objects into a shared library.

    exports: names that dlsym finds; all global functions by default. needed: libraries that the loader brings in.
    Raises LinkError for what it cannot do, for symbols defined twice or not at all, and for code that needs Python.
    """
    return _Linker(objects).link(exports, needed)
