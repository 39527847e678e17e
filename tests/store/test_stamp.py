"""Only a collection's own stamp and settings decide whether a load may write to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.loading import a_target
from upsert_cli.errors import Refusal
from upsert_cli.store.chroma.configuration import info_of
from upsert_cli.store.stamp import check_model, stamp
from upsert_cli.store.target import CollectionInfo


def _described(name: str | None = None, metadata: dict[str, Any] | None = None, **config: Any) -> CollectionInfo:
    function = {"type": "legacy"} if name is None else {"type": "known", "name": name, "config": config}
    return info_of("default", None, metadata or {}, {"embedding_function": function})


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("sentence_transformer", {"model_name": "small-model"}),
        ("sentence_transformer", {"model_name": "Maker/Small-Model"}),
        ("ollama", {"model": "small-model"}),
    ],
)
def test_stored_function_of_the_same_model_is_evidence(name: str, config: dict[str, Any], tmp_path: Path) -> None:
    """A stored embedding function with the same model, with or without its maker, causes no warning."""
    assert check_model(a_target(tmp_path), _described(name, **config)) == ()


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("sentence_transformer", {"model_name": "other-model"}),
        ("openai", {"model_name": "text-embedding-3-small"}),
        ("something", {}),
        ("default", {}),
        ("onnx_mini_lm_l6_v2", {}),
    ],
)
def test_stored_function_of_another_model_is_refused(name: str, config: dict[str, Any], tmp_path: Path) -> None:
    """A stored embedding function of another model is refused, whatever its dimension."""
    with pytest.raises(Refusal, match="load with that, or into another --collection"):
        check_model(a_target(tmp_path), _described(name, **config))


def test_a_stamp_is_accepted_by_its_maker(tmp_path: Path) -> None:
    """A target's own stamp matches, also in part and next to other programs' metadata."""
    target = a_target(tmp_path)
    full = stamp(target)
    assert check_model(target, _described(metadata={**full, "owner": "me"})) == ()
    assert check_model(target, _described(metadata={"upsert_cli_model": target.model.name})) == ()


@pytest.mark.parametrize(
    ("key", "value"), [("upsert_cli_model", "another"), ("upsert_cli_dimension", 5), ("upsert_cli_max_tokens", 777)]
)
def test_each_part_of_the_stamp_counts(key: str, value: str | int, tmp_path: Path) -> None:
    """Any difference in the stamp is refused, and the message names both values."""
    target = a_target(tmp_path)
    with pytest.raises(Refusal, match=str(value)):
        check_model(target, _described(metadata={**stamp(target), key: value}))


def test_a_stored_function_without_a_usable_configuration_has_only_a_name() -> None:
    """Other programs may store anything as the configuration of an embedding function."""
    info = info_of("default", None, {}, {"embedding_function": {"name": "something", "config": "text"}})
    assert info.function == "of the embedding function something"
