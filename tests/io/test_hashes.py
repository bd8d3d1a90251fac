from __future__ import annotations

import hashlib

from medseg.io.hashes import sha256_of_file, sha256_of_files

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1


def test_hash_of_a_file_is_the_published_one(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of_file(tmp_path / "a") == ABC
    assert sha256_of_files([tmp_path / "a"]) == ABC


def test_hash_of_several_files_is_over_their_hashes_and_knows_their_order(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"")
    empty = hashlib.sha256(b"").hexdigest()
    files = [tmp_path / "a", tmp_path / "b"]
    assert sha256_of_files(files) == hashlib.sha256((ABC + empty).encode()).hexdigest()
    assert sha256_of_files(files) != sha256_of_files(files[::-1])
