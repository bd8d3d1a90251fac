"""Expressions of bundles: what has a meaning without running Python, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medseg.errors import InvalidBundle, UntrustedCode
from medseg.models.monai_config import BundleConfig, parse_config
from medseg.models.monai_values import Component, Lambda, Symbol


def resolved(content: dict[str, Any], key: str = "x") -> Any:
    return BundleConfig(content, "bundle", Path("/root")).resolve(key)


PLAIN = {
    "arithmetic": ("$(2 + 3) * 4 - 2 ** 3 / 4", 18.0),
    "comparison": ("$1 < 2 <= 2 and not 3 in [1, 2]", True),
    "conditional": ("$[1.5, 1.5] if @flag else [3.0]", [1.5, 1.5]),
    "reference": ("$@size + [4]", [1, 2, 3, 4]),
    "older separator": ("$@deep#0#name + '!'", "a!"),
    "newer separator": ("$@deep::0::name", "a"),
    "length": ("$len(@labels) + 1", 3),
    "dictionary": ("$max(@labels.values())", 1),
    "comprehension": ("$[2 * i + j for i in range(4) if i % 2 for j in (0, 1)]", [2, 3, 6, 7]),
    "zip": ("$dict(zip(['a', 'b'], [1, 2]))", {"a": 1, "b": 2}),
    "path": ("$os.path.join(@bundle_root, 'models', 'model.pt')", "/root/models/model.pt"),
    "text": ("$@deep#0#name.upper()", "A"),
    "slice": ("$@size[1:]", [2, 3]),
    "device": ("$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')", "device"),
    "enumeration": ("$monai.utils.CommonKeys.IMAGE", "image"),
    "copy": ("$copy.deepcopy(@size)", [1, 2, 3]),
    "renamed import": ("$p.join('a', 'b')", "a/b"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_expressions_have_their_python_value(name: str) -> None:
    source, expected = PLAIN[name]
    content = {
        "imports": ["$import os", "$import copy", "$import os.path as p"],
        "flag": True,
        "size": [1, 2, 3],
        "deep": [{"name": "a"}],
        "labels": {"spleen": 1, "background": 0},
        "x": source,
    }
    assert resolved(content) == expected


CODE = [
    "$__import__('os').system('touch /tmp/never')",
    "$os.system('touch /tmp/never')",
    "$open('/etc/passwd').read()",
    "$().__class__.__bases__[0].__subclasses__()",
    "$(lambda: 1)()",
    "$[].append(1)",
    "$'{0.__class__}'.format(1)",
    "$'%s' % 1",
    "$f'{1}'",
    "$torch.hub.load('a', 'b')",
    "$scripts.build()",
    "$@network_def.forward",
    "$monai",
    "$exec('1')",
    "$[print for _ in [1]][0]('x')",
    "$np.load('x.npy', allow_pickle=True)",
    "$(x := 1)",
    "$import os",
]


@pytest.mark.parametrize("source", CODE)
def test_code_is_refused_with_its_key_and_its_text(source: str) -> None:
    content = {"imports": ["$import os", "$import scripts"], "network_def": {"_target_": "UNet"}, "part": {"x": source}}
    if source == "$monai":
        assert resolved(content, "part::x") == Symbol("monai")  # a name is no code until something calls it
        return
    with pytest.raises(UntrustedCode) as caught:
        resolved(content, "part::x")
    assert "part::x" in str(caught.value)
    assert source in str(caught.value)
    assert "--trust" in str(caught.value)


def test_imports_of_a_bundle_are_not_carried_out(tmp_path: Path) -> None:
    (tmp_path / "scripts.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    code = (
        "from medseg.models.monai_config import BundleConfig; from pathlib import Path;"
        "print(BundleConfig({'imports': ['$import scripts'], 'x': '$1 + 1'}, 'b', Path('.')).resolve('x'))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "2"
    assert not (tmp_path / "ran").exists()


BOMBS = [
    "$9 ** 9 ** 9",
    "$[0] * 10 ** 10",
    "$'a' * 10 ** 9",
    "$list(range(10 ** 12))",
    "$[[0] * 1000000 for _ in range(1000000)]",
    "$sum([i for i in range(1000) for j in range(1000) for k in range(1000)])",
    "$" + "(" * 5000 + "1" + ")" * 5000,
    "$1 / 0",
    "$[1, 2][5]",
    "$1 +",
]


@pytest.mark.parametrize("source", BOMBS, ids=range(len(BOMBS)))
def test_expressions_that_fail_or_take_too_much_are_an_invalid_bundle(source: str) -> None:
    with pytest.raises(InvalidBundle, match="bundle: x"):
        resolved({"x": source})


def test_components_keep_their_arguments_until_they_are_asked_for() -> None:
    content = {
        "net": {"_target_": "UNet", "channels": "$[4 * 2]", "act": "$open('x')"},
        "moved": "$@net.to('cpu').eval()",
    }
    component = resolved(content, "moved")
    assert isinstance(component, Component)
    assert (component.target, component.get("channels")) == ("UNet", [8])
    with pytest.raises(UntrustedCode, match="net::act"):
        component.get("act")


def test_calls_of_monais_classes_are_components_too() -> None:
    component = resolved({"channels": 3, "x": "$monai.networks.nets.UNet(3, in_channels=@channels)"})
    assert isinstance(component, Component)
    assert (component.name, component.positional, component.values()) == ("UNet", (3,), {"in_channels": 3})


def test_a_lambda_is_looked_at_and_not_called() -> None:
    function = resolved({"x": "$lambda x: x > 3"})
    assert isinstance(function, Lambda)
    assert function.source == "$lambda x: x > 3"


def test_disabled_components_are_left_out_of_lists() -> None:
    content = {
        "x": [
            {"_target_": "A", "_disabled_": True},
            {"_target_": "B", "_disabled_": "$not os.path.exists('/')"},
            {"_target_": "C", "_disabled_": "true"},
        ],
        "imports": ["$import os"],
    }
    assert [component.name for component in resolved(content)] == ["B"]


def test_references_to_siblings_and_macros() -> None:
    content = {"a": {"b": {"x": "@::y", "y": 5, "z": "@::::w"}, "w": 7, "m": "%a::w"}}
    assert resolved(content, "a") == {"b": {"x": 5, "y": 5, "z": 7}, "w": 7, "m": 7}


def test_modes_and_requirements_that_need_code_are_refused() -> None:
    with pytest.raises(UntrustedCode, match="x::_mode_"):
        resolved({"x": {"_target_": "UNet", "_mode_": "debug"}})
    with pytest.raises(UntrustedCode, match="x::_requires_"):
        resolved({"x": {"_target_": "UNet", "_requires_": "$open('y')"}})
    with pytest.raises(UntrustedCode, match="x::_target_"):
        resolved({"x": {"_target_": "$open"}})


def test_what_refers_to_itself_or_to_nothing_says_so() -> None:
    with pytest.raises(InvalidBundle, match="x -> y -> x refers to itself"):
        resolved({"x": "@y", "y": "$@x"})
    with pytest.raises(InvalidBundle, match="no 'gone'"):
        resolved({"x": "@gone"})


def test_weights_named_by_an_expression_are_read_as_data_from_within_the_bundle(tmp_path: Path) -> None:
    from medseg.models.monai_files import find_bundle
    from tests.models.bundles import changed, write_bundle

    code = {"x": "$torch.load(@bundle_root + '/models/code.pt')['a']", "y": "$torch.load('/etc/hosts')"}
    folder = write_bundle(tmp_path / "b", changed(**code))
    torch.save({"a": np.array([[1, 2], [3, 4]])}, folder / "models" / "code.pt")
    config = find_bundle(folder).config()
    np.testing.assert_array_equal(config.resolve("x"), [[1, 2], [3, 4]])
    with pytest.raises(InvalidBundle, match="outside of the bundle"):
        config.resolve("y")


def test_json_and_yaml_are_read_and_nothing_else() -> None:
    assert parse_config("a: [1, 2]", "inference.yaml") == {"a": [1, 2]}
    with pytest.raises(InvalidBundle, match=r"inference\.json is not JSON"):
        parse_config("a: 1", "inference.json")
    with pytest.raises(InvalidBundle, match="is not YAML"):
        parse_config("!!python/object/apply:os.system ['true']", "inference.yaml")
    with pytest.raises(InvalidBundle, match="expected a mapping"):
        parse_config("[1]", "inference.json")
