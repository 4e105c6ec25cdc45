"""The form of what `vgf check --json` writes, as JSON Schema."""

from __future__ import annotations

from typing import Any

_TEXTS = {"type": "array", "items": {"type": "string"}}
_ENDS = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}
_NUMBER = {"type": ["number", "string"], "description": "a word where it is not finite"}

RESULT: dict[str, Any] = {
    "type": "object",
    "required": [
        "function",
        "as",
        "agrees",
        "verdict",
        "specification",
        "framework",
        "dtypes",
        "tolerance",
        "tolerance_kind",
        "digits_lost",
        "domain",
        "bindings",
        "notes",
        "findings",
        "smallest",
    ],
    "additionalProperties": False,
    "properties": {
        "function": {"type": "string", "description": "what was checked"},
        "as": {"type": "string", "description": "the equation"},
        "agrees": {"type": "boolean", "description": "the exit status is 0 if true, else 1"},
        "verdict": {"enum": ["agrees", "agrees up to cancellation", "DIFFERS"]},
        "specification": {"type": "string", "description": "its version"},
        "framework": {
            "enum": ["numpy", "torch", "jax"],
            "description": "of the arrays it was given",
        },
        "dtypes": {
            "type": "array",
            "items": {
                "type": "object",
                "required": [
                    "dtype",
                    "examples",
                    "differ",
                    "worst_ratio_to_tolerance",
                    "largest_relative_error",
                ],
                "additionalProperties": False,
                "properties": {
                    "dtype": {"enum": ["float64", "float32"]},
                    "examples": {"type": "integer", "description": "inputs that were tried"},
                    "differ": {"type": "integer", "description": "inputs on which it differs"},
                    "worst_ratio_to_tolerance": _NUMBER,
                    "largest_relative_error": _NUMBER,
                },
            },
        },
        "tolerance": {"type": "string", "description": "in words"},
        "tolerance_kind": {"enum": ["strict", "cancellation", "tf32", "bf16"]},
        "digits_lost": {
            "type": "number",
            "description": "decimal digits lost to cancellation, beyond the specification's form",
        },
        "domain": {
            "type": "object",
            "description": "the smallest and the largest of each size that was tried",
            "additionalProperties": _ENDS,
        },
        "bindings": {**_TEXTS, "description": "what each of its arguments was given"},
        "notes": {**_TEXTS, "description": "what was held fixed, not compared, not reached"},
        "findings": {
            "type": "array",
            "description": "what is wrong, the most telling first",
            "items": {
                "type": "object",
                "required": ["kind", "says", "variants", "matched", "of"],
                "additionalProperties": False,
                "properties": {
                    "kind": {
                        "enum": [
                            "variant",
                            "called",
                            "factor",
                            "raises",
                            "shape",
                            "dtype",
                            "nan",
                            "in place",
                            "random",
                            "drawn",
                            "gradient",
                            "states",
                            "order",
                            "returned",
                            "rounding",
                            "parts",
                            "where",
                            "unknown",
                        ],
                        "description": "variant, called and factor are causes: they explain every "
                        "input; the others say what is seen",
                    },
                    "says": {"type": "string"},
                    "variants": {**_TEXTS, "description": "names in the library"},
                    "matched": {"type": "integer", "description": "inputs on which it holds"},
                    "of": {"type": "integer"},
                },
            },
        },
        "smallest": {
            "type": ["object", "null"],
            "description": "the smallest input found on which it differs",
            "required": ["dtype", "arguments", "got", "expected", "difference"],
            "properties": {
                "dtype": {"type": "string"},
                "arguments": {"type": "object"},
                "got": {},
                "expected": {},
                "difference": {"type": "string"},
            },
        },
    },
}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "What vgf check --json writes for functions",
    "type": "array",
    "items": RESULT,
}
