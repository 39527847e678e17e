"""The errors: kinds with fields, as dataclasses are, and without their cost at start-up."""

from __future__ import annotations

import pickle
import re

import pytest

from upsert_cli import errors
from upsert_cli.errors import ItemError, SourceUnreadable, Stage, TargetInUse, UpsertCliError


@pytest.mark.parametrize(
    "given", [{}, {"path": "a", "collection": "c"}, {"path": "a", "holder": "b", "collection": "c", "row": 1}]
)
def test_an_error_has_its_fields_and_no_others(given: dict[str, str]) -> None:
    """One that is missing or unknown, its base's among them, is found where the error is made."""
    with pytest.raises(TypeError, match=r"TargetInUse has the fields \['collection', 'holder', 'message', 'path'\]"):
        TargetInUse(**given)


def test_an_error_crosses_the_pipe_unchanged() -> None:
    """Its fields, those that were not given too, and its text survive pickling: some cross the writer's pipe."""
    for error in (SourceUnreadable(name="a", reason="b", row=3), SourceUnreadable(name="a", reason="b")):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own
        assert (type(again), again.row, str(again), repr(again)) == (type(error), error.row, str(error), repr(error))
    item = pickle.loads(pickle.dumps(ItemError(stage=Stage.UPSERT, detail="no")))  # noqa: S301  # our own
    assert (item.stage, item.detail) == (Stage.UPSERT, "no")


def test_every_error_has_a_sentence_of_its_own() -> None:
    """Each concrete error has its own message."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    roots = {errors.UpsertCliError, errors.UsageFault, errors.Refusal}
    speaking = [kind for kind in kinds if issubclass(kind, UpsertCliError) and kind not in roots]
    silent = [kind for kind in speaking if kind.__str__ is UpsertCliError.__str__ and not kind.sentence]
    assert silent == []
    for kind in speaking:
        assert set(re.findall(r"{(\w+)}", kind.sentence)) <= {*kind.__annotations__}
