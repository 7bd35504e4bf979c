"""Pass 3b, fuse: patterns of nodes become one node, rule by rule.

Every rule is a function `(Uses, Target) -> notes` in a file of its own, and can be switched off by its name:
`LITEJIT_FUSION_OFF=swish,layer_norm` (`all`: every rule).
"""

from __future__ import annotations

import os
from collections.abc import Callable

from litejit.errors import LiteJitError
from litejit.ops.base import Target
from litejit.planner.drop_unread import drop_unread
from litejit.planner.fuse_activation import fuse_activations
from litejit.planner.fuse_attention import fuse_attention
from litejit.planner.fuse_concat import fuse_concats
from litejit.planner.fuse_excite import fuse_excitations
from litejit.planner.fuse_float_chain import fuse_float_chains
from litejit.planner.fuse_layer_norm import fuse_layer_norm
from litejit.planner.fuse_mean import fuse_means
from litejit.planner.fuse_pad import fuse_pads
from litejit.planner.fuse_pixel_pitch import fuse_pixel_pitches
from litejit.planner.fuse_separable import fuse_separable
from litejit.planner.fuse_swish import fuse_swish
from litejit.planner.fuse_tail import fuse_tails
from litejit.planner.fuse_turned import turn_transposed
from litejit.planner.fuse_unary_chain import fuse_unary_chains
from litejit.planner.fuse_unsigned_codes import fuse_unsigned_codes
from litejit.planner.graph import Graph
from litejit.planner.patterns import Uses

Rule = Callable[[Uses, Target], list[str]]
RULES: dict[str, Rule] = {  # in the order in which they are tried
    "unread": drop_unread,
    "turned": turn_transposed,
    "pad": fuse_pads,
    "activation": fuse_activations,
    "swish": fuse_swish,
    "squeeze_excite": fuse_excitations,
    "attention": fuse_attention,
    "layer_norm": fuse_layer_norm,
    "tail": fuse_tails,
    "separable": fuse_separable,
    "mean": fuse_means,
    "unary_chain": fuse_unary_chains,
    "float_chain": fuse_float_chains,
    "pixel_pitch": fuse_pixel_pitches,
    "unsigned_codes": fuse_unsigned_codes,
    "concat": fuse_concats,  # and, while lowering, planner/pieces.py
}


def switched_off() -> tuple[str, ...]:
    """The rules that `LITEJIT_FUSION_OFF` names. Raises ValueError for a name that no rule has."""
    names = tuple(sorted(name for name in os.environ.get("LITEJIT_FUSION_OFF", "").replace(" ", "").split(",") if name))
    unknown = [name for name in names if name not in RULES and name != "all"]
    if unknown:
        raise ValueError(f"LITEJIT_FUSION_OFF={','.join(unknown)}: the rules are {', '.join(RULES)}, all")
    return tuple(RULES) if "all" in names else names


def fuse(graph: Graph, target: Target) -> list[str]:
    """Apply the rules that are on, to the bodies of control flow as well; says what was fused into what.

    Raises LiteJitError naming a rule that fails.
    """
    bodies = [body for node in graph.nodes for body in node.bodies]
    notes = [f"in a body, subgraph {body.index}: {note}" for body in bodies for note in fuse(body, target)]
    for name, rule in RULES.items():
        if name in target.without:
            continue
        try:
            notes += rule(Uses(graph), target)
        except (LiteJitError, MemoryError):
            raise
        except Exception as error:  # options or tensors of a kind that the rule did not expect
            text = f"{type(error).__name__}: {error}; LITEJIT_FUSION_OFF={name} switches the rule off"
            raise LiteJitError(f"subgraph {graph.index}: fusion rule {name} failed: {text}") from error
    return notes
