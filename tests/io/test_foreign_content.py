from __future__ import annotations

import pickle

import pytest

from medseg.io.foreign_content import describe_foreign


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"", "empty"),
        (bytes(352), "nothing but zeros"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"  <!DOCTYPE html><html>", "web page"),
        (b"<HTML>404", "web page"),
        (pickle.dumps({"a": 1}), "pickle"),
        (b"\x89PNG\r\n", "PNG"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"Hello", "something that begins with b'Hello'"),
    ],
)
def test_content_is_named(head, what):
    assert what in describe_foreign(head)


def test_only_the_beginning_is_shown():
    assert len(describe_foreign(b"x" * 10_000)) < 60
