"""What is wrong with a model, or with embedding by it."""

from __future__ import annotations

from upsert_cli.errors.base import UpsertCliError, UsageFault

# -- embedding ---------------------------------------------------------------------------------------------------------


class EmbedderUnusable(UpsertCliError):
    """Raised when the model's files are there but cannot be loaded."""

    model: str
    folder: str
    reason: str
    cached: bool = False
    """The folder is of the cache; else the user named it."""

    def __str__(self) -> str:
        remedy = "remove the folder, and it is fetched again" if self.cached else "give --model-path another folder"
        return f"the model {self.model} in {self.folder} cannot be loaded ({self.reason}); {remedy}"


class DeviceUnusable(UpsertCliError):
    """Raised when texts are to be embedded by a GPU that onnxruntime cannot use."""

    reason: str

    def __str__(self) -> str:
        return (
            f"--device cuda cannot be used ({self.reason}); install onnxruntime-gpu in place of onnxruntime, with the "
            "CUDA that fits it, or run the task with --device cpu"
        )


class EmbedderFailed(UpsertCliError):
    """Raised when the model fails on any text, so that no item is to blame."""

    reason: str

    def __str__(self) -> str:
        return f"the model fails on every text ({self.reason}); see whether memory is short, then restart the task"


# -- models ------------------------------------------------------------------------------------------------------------


class UnknownModel(UsageFault):
    """Raised when fastembed has no dense text model of that name."""

    name: str
    near: tuple[str, ...]
    """Names that look like it, the likeliest first."""

    def __str__(self) -> str:
        question = f"did you mean {' or '.join(self.near)}? " if self.near else ""
        return f"fastembed has no text model named {self.name!r}; {question}`upsert-cli models list` names them all"


class ModelNotFound(UpsertCliError):
    """Raised when none of the places that a model can come from has it."""

    model: str
    tried: tuple[tuple[str, str], ...]
    """Each place in the order of search, with one line of reason: `("model hub", "huggingface.co:443 ...")`."""

    def __str__(self) -> str:
        places = "; ".join(f"{place}: {reason}" for place, reason in self.tried)
        return (
            f"the model {self.model} was not found ({places}); `upsert-cli models fetch --model {self.model}` fetches "
            f"it where there is a network, --model-path takes a folder that holds it"
        )


class ModelNotKept(UpsertCliError):
    """Raised when a model was found, and the cache cannot take it."""

    model: str
    folder: str
    """Of the cache."""

    reason: str

    def __str__(self) -> str:
        return (
            f"the model {self.model} cannot be kept in {self.folder} ({self.reason}); make room there and in the "
            f"temporary folder, or let UPSERT_CLI_MODEL_CACHE name another folder that can be written"
        )


class ModelDamaged(UpsertCliError):
    """Raised when the folder of a model lacks a file, or holds one that says nothing usable."""

    model: str
    folder: str
    problem: str
    """What is wrong, as the end of a sentence about the folder: `lacks tokenizer.json`."""

    given: bool
    """The user named the folder; else it is in the cache."""

    def __str__(self) -> str:
        remedy = "give --model-path a complete folder" if self.given else "remove it, and it is fetched anew"
        return f"the folder {self.folder} of the model {self.model} {self.problem}; {remedy}"


class PlaceUnusable(UpsertCliError):
    """Raised when one of the places that a model can come from cannot give it; the next one is asked."""

    reason: str

    def __str__(self) -> str:
        return self.reason
