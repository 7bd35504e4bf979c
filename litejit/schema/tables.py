"""The TFLite schema, declared once: tables with their fields in the order of their slots, and unions.

A declaration is the name of a table, then a word for each field: `name:type=default`. Types: scalars,
`string`, enumerations, tables, unions, `[...]` for a vector, `[type/16]` for a vector aligned to 16 bytes, and
`subgraph`, an int32 (`usubgraph`: uint32) that is the index of a subgraph. A leading `-` marks a field that is
deprecated: its slot is kept, nobody reads it. A union takes two slots, its tag (uint8) first. Defaults that are
not given are zero; vectors, strings, tables and unions have none.

No table contains itself, directly or through others, and children are declared after their parents: the depth
of a file is bounded by the schema, and verifying the tables in this order meets parents first.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from .enums import ENUMS
from .options import BUILTIN_OPTIONS, BUILTIN_OPTIONS_2, names

FILE_IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3

_STRUCTURE = """
Model version:uint32 operator_codes:[OperatorCode] subgraphs:[SubGraph] description:string buffers:[Buffer]
    metadata_buffer:[int32] metadata:[Metadata] signature_defs:[SignatureDef]
    external_buffer_groups:[ExternalBufferGroup] external_buffers:[ExternalBuffer]
OperatorCode deprecated_builtin_code:int8 custom_code:string version:int32=1 builtin_code:BuiltinOperator
SubGraph tensors:[Tensor] inputs:[int32] outputs:[int32] operators:[Operator] name:string
    debug_metadata_index:int32=-1
Tensor shape:[int32] type:TensorType buffer:uint32 name:string quantization:QuantizationParameters is_variable:bool
    sparsity:SparsityParameters shape_signature:[int32] has_rank:bool variant_tensors:[VariantSubType]
    external_buffer:uint32
Operator opcode_index:uint32 inputs:[int32] outputs:[int32] builtin_options:BuiltinOptions custom_options:[uint8]
    custom_options_format:CustomOptionsFormat mutating_variable_inputs:[bool] intermediates:[int32]
    large_custom_options_offset:uint64 large_custom_options_size:uint64 builtin_options_2:BuiltinOptions2
    debug_metadata_index:int32=-1
Buffer data:[uint8/16] offset:uint64 size:uint64
QuantizationParameters min:[float32] max:[float32] scale:[float32] zero_point:[int64] details:QuantizationDetails
    quantized_dimension:int32
CustomQuantization custom:[uint8/16]
BlockwiseQuantization scales:int32 zero_points:int32 block_size:int32 block_shape:[int32]
MultiAxisQuantization scales:int32 zero_points:int32 block_size:int32 quantized_dimensions:[int32]
SparsityParameters traversal_order:[int32] block_map:[int32] dim_metadata:[DimensionMetadata]
DimensionMetadata format:DimensionType dense_size:int32 array_segments:SparseIndexVector
    array_indices:SparseIndexVector
Int32Vector values:[int32]
Uint16Vector values:[uint16/4]
Uint8Vector values:[uint8/4]
VariantSubType shape:[int32] type:TensorType has_rank:bool
SignatureDef inputs:[TensorMap] outputs:[TensorMap] signature_key:string -deprecated_tag:string subgraph_index:uint32
TensorMap name:string tensor_index:uint32
Metadata name:string buffer:uint32
ExternalBufferGroup name:string
ExternalBuffer id:uint32 group:uint32 offset:uint64 length:uint64 packing:string
"""

#: Members of each union in the order of their tags; 0 is NONE.
UNIONS: dict[str, list[str]] = {
    "QuantizationDetails": ["NONE", "CustomQuantization", "BlockwiseQuantization", "MultiAxisQuantization"],
    "SparseIndexVector": ["NONE", "Int32Vector", "Uint16Vector", "Uint8Vector"],
    "BuiltinOptions": ["NONE", *names(BUILTIN_OPTIONS)],
    "BuiltinOptions2": ["NONE", *names(BUILTIN_OPTIONS_2)],
}

#: Scalars: format of `struct`, NumPy dtype, size in bytes.
SCALARS: dict[str, tuple[str, str, int]] = {
    "bool": ("<?", "?", 1),
    "int8": ("<b", "<i1", 1),
    "uint8": ("<B", "<u1", 1),
    "int16": ("<h", "<i2", 2),
    "uint16": ("<H", "<u2", 2),
    "int32": ("<i", "<i4", 4),
    "uint32": ("<I", "<u4", 4),
    "int64": ("<q", "<i8", 8),
    "uint64": ("<Q", "<u8", 8),
    "float32": ("<f", "<f4", 4),
}
Members = type[IntEnum]
_ALIASES = {"subgraph": "int32", "usubgraph": "uint32"}


class Field(NamedTuple):
    """One field of a table."""

    name: str
    slot: int  #: of the value; a union's tag is in the slot before
    kind: str  #: scalar, enum, string, table or union
    type: str  #: as declared
    vector: bool
    format: str  #: of `struct`, for scalars and enumerations, also in vectors
    dtype: str  #: NumPy's name of it
    size: int  #: of one element in bytes (4 for offsets)
    align: int  #: of the first element of a vector
    default: bool | int | float | IntEnum | None
    deprecated: bool

    @property
    def members(self) -> Members:
        """The enumeration of an enum field."""
        return ENUMS[self.type][0]


class Table:
    """A table of the schema: its name and its fields by name, in the order of their slots."""

    __slots__ = ("fields", "name", "slots")

    def __init__(self, name: str, words: list[str]) -> None:
        self.name = name
        self.fields: dict[str, Field] = {}
        slot = 0
        for word in words:
            field = _field(word, slot)
            self.fields[field.name] = field
            slot = field.slot + 1
        self.slots = slot

    def __repr__(self) -> str:
        return f"Table({self.name}: {' '.join(self.fields)})"


def _field(word: str, slot: int) -> Field:
    name, _, declared = word.partition(":")
    declared, _, default = declared.partition("=")
    deprecated = name.startswith("-")
    vector = declared.startswith("[")
    type_, _, align = declared.strip("[]").partition("/")
    kind, stored = _kind(type_)
    if kind == "union":
        slot += 1
    format_, dtype, size = SCALARS[stored] if stored else ("<I", "<u4", 4)
    value = None if vector or not stored else _default(type_, stored, default)
    return Field(
        name.lstrip("-"), slot, kind, type_, vector, format_, dtype, size, int(align or size), value, deprecated
    )


def _kind(type_: str) -> tuple[str, str]:
    """Kind of a declared type, and the scalar that stores it ('' for what is stored behind an offset)."""
    if type_ in ENUMS:
        return "enum", ENUMS[type_][1]
    if type_ in SCALARS or type_ in _ALIASES:
        return "scalar", _ALIASES.get(type_, type_)
    if type_ == "string":
        return "string", ""
    return ("union" if type_ in UNIONS else "table"), ""


def _default(type_: str, stored: str, text: str) -> bool | int | float | IntEnum:
    if type_ in ENUMS:
        members = ENUMS[type_][0]
        return members[text] if text else members(0)
    if stored == "bool":
        return text == "true"
    return float(text or 0) if stored == "float32" else int(text or 0)


def _declarations() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    words: list[str] = []
    for word in (_STRUCTURE + BUILTIN_OPTIONS + BUILTIN_OPTIONS_2).split():
        if ":" in word:
            words.append(word)
        else:
            words = found[word] = []
    return found


_WORDS = _declarations()
_parsed: dict[str, Table] = {}

#: Names of all tables, parents before children.
TABLES: tuple[str, ...] = tuple(_WORDS)


def table(name: str) -> Table:
    """The declaration of a table (parsed when first asked for)."""
    found = _parsed.get(name)
    if found is None:
        found = _parsed[name] = Table(name, _WORDS[name])
    return found
