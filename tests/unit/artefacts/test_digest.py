import hashlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.artefacts.digest import canonical_json, digest, file_digest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON, min_size=1, max_size=5))
def test_digest_ignores_the_order_of_keys_only(value: dict[str, object]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))
    assert digest(value) != digest(value | {"\0new": 0})
    assert digest(value) == hashlib.sha256(canonical_json(value).encode()).hexdigest()


def test_file_digest_equals_sha256(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 100_000)
    assert file_digest(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()
