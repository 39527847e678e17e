"""The origin of a load's vectors, either a model or the items themselves, and the recipe of its documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from upsert_cli.context import RunContext
from upsert_cli.documents.recipe import Recipe
from upsert_cli.documents.splitter import Splitter, require_splitter
from upsert_cli.embedding.catalog import NO_MODEL, NO_PREFIXES, embeds
from upsert_cli.embedding.embedder import Embedder, load_model, require_device, require_precision
from upsert_cli.embedding.fastembed import load_token_counter, load_tokenizer
from upsert_cli.embedding.identity import Model, ModelIdentity, OwnVectors, identity_if_known
from upsert_cli.embedding.models import find_model, full_name, model_without_weights, prefixes_of
from upsert_cli.errors import Refusal, UpsertCliError, UsageFault
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.pipeline.preflight import first_dimension
from upsert_cli.sources.source import Source
from upsert_cli.store.collection_source import StoredCollection
from upsert_cli.store.location import Location
from upsert_cli.store.target import CollectionInfo

_UNKNOWN = ModelIdentity(name=NO_MODEL, dimension=0, max_tokens=0)


def require_computable(model: str, options: LoadOptions) -> None:
    """Check, before anything is read, that texts can be split and embedded with the options of a load.

    Raises:
        UsageFault: The precision or the device does not suit the model.
        UpsertCliError: A package is not installed, or this machine does not compute in the precision.
    """
    if options.split:
        require_splitter()
    here = options.engine == "local"
    require_precision(options.precision, model, given=options.given_model, here=here)
    require_device(options.device, model, given=options.given_model)


def load_embedder(model: Model | OwnVectors, options: LoadOptions) -> Embedder:
    """Load a model with the options of a load; see `load_model`."""
    threads = options.effort.threads
    return load_model(model, device=options.device, precision=options.precision, threads=threads)


def name_of_model(name: str, options: LoadOptions, sources: Sequence[Source]) -> str:
    """Return the full name of the model that the user names or, with `--keep-vectors`, that made the vectors."""
    return kept_vectors(sources).name if options.keep_vectors else full_name(name, given=options.given_model)


def with_usual_prefixes(options: LoadOptions, model: str) -> LoadOptions:
    """Return the options of a request, with the prefixes that its model asks for where the user gave none."""
    return options.with_prefixes(NO_PREFIXES if options.keep_vectors else prefixes_of(model, given=options.given_model))


def origin_of_vectors(
    name: str, options: LoadOptions, sources: Sequence[Source], location: Location, *, context: RunContext
) -> Model | OwnVectors:
    """Return the model of a load, or the vectors of its items, with the dimension of the collection.

    A model that is not on this machine is fetched.
    """
    if options.keep_vectors:
        return kept_vectors(sources)
    if not embeds(name):
        info = location.describe()
        if info is not None and info.dimension is not None:
            return OwnVectors(dimension=info.dimension)
        return _own_vectors(options, sources)
    model = _model_of(name, options, context=context)
    if model.pooling:  # a model of the user's own, whose name the collection may spell in another case
        info = location.describe()
        stamp = None if info is None else info.stamp
        if stamp is not None and stamp.name.lower() == model.name.lower():
            return replace(model, name=stamp.name)  # the name is part of each record's hash
    return model


def origin_on_this_machine(wanted: ModelIdentity, options: LoadOptions, *, machine: str) -> Model | OwnVectors:
    """Return the origin that another process has found for a load, with the files of this machine.

    Raises:
        Refusal: The model on this `machine` is another one, or the machine does not compute in the load's precision.
    """
    if isinstance(wanted, OwnVectors):
        return wanted
    require_precision(options.precision, wanted.name, given=options.given_model)
    found = _model_of(wanted.name, options)
    for what, had, asked in wanted.differences(found):
        raise Refusal(
            message=f"the {what} of {found.name} in {found.folder} of the worker {machine} is {asked}, and "
            f"{had} where the task is run; put the same files on each machine, then restart the task"
        )
    return found


def origin_without_files(name: str, options: LoadOptions, sources: Sequence[Source]) -> ModelIdentity:
    """Return as much of the origin of a load's vectors as is known without the files of a model."""
    if options.keep_vectors:
        return kept_vectors(sources)
    if not embeds(name):
        return _own_vectors(options, sources)
    return identity_if_known(name, options.prefixes) or replace(_UNKNOWN, name=name)


def origin_without_weights(name: str, options: LoadOptions, sources: Sequence[Source]) -> ModelIdentity:
    """Return the origin of a load's vectors for a preview, a `Model` if its tokenizer is on this machine.

    Raises:
        UpsertCliError: Texts are to be split, and the tokenizer is not on this machine.
    """
    if not embeds(name) or options.keep_vectors:
        return origin_without_files(name, options, sources)
    model = model_without_weights(name, given=options.given_model, prefixes=options.prefixes)
    if model is None and options.split:
        raise UpsertCliError(
            message=f"--split needs the tokenizer of {name}, which is not on this machine; `upsert-cli models "
            f"fetch --model {name}` fetches it, --model-path takes a folder that holds it"
        )
    return model or origin_without_files(name, options, sources)


def recipe_of(options: LoadOptions, model: ModelIdentity) -> Recipe:
    """Return the recipe that makes documents of items; it splits texts if `model` has a tokenizer on this machine.

    Raises:
        Refusal: A chunk would have more tokens than the model reads, or none besides its prefix.
    """
    recipe = options.recipe(model.name, identity=model.hashed, dimension=model.dimension)
    if not options.split or not isinstance(model, Model):
        return recipe
    tokens = options.max_tokens or model.max_tokens
    if tokens > model.max_tokens:
        raise Refusal(
            message=f"--max-tokens {tokens}: {model.name} reads at most {model.max_tokens} tokens; give that, or less"
        )
    prefix = model.prefixes.passage
    splitter = Splitter(load_tokenizer(model), max_tokens=tokens, overlap=options.overlap, prefix=prefix)
    return replace(recipe, splitter=splitter, average=options.average)


def kept_vectors(sources: Sequence[Source]) -> OwnVectors:
    """Return the vectors of the collections among some sources, with the model that the collections name.

    Raises:
        UsageFault: The vectors have different models, dimensions or distances, or no source is a collection.
    """
    described = [(source, source.path.describe()) for source in sources if isinstance(source.path, StoredCollection)]
    if not described:
        raise UsageFault(message="--keep-vectors goes with a collection as a source, chroma:TARGET#COLLECTION")
    (name, first), *others = ((source.name, _vectors_of(info)) for source, info in described)
    for other_name, other in others:
        if other != first:
            raise UsageFault(
                message=f"--keep-vectors: {name} holds {_described(first)}, and {other_name} {_described(other)}; "
                f"load them into different collections"
            )
    return first


def is_known(origin: ModelIdentity) -> bool:
    """Check that the model's limit is known, which is part of the hashes of records; own vectors have none."""
    return origin.max_tokens > 0 or isinstance(origin, OwnVectors)


def token_counter(origin: ModelIdentity) -> Callable[[str], int] | None:
    """Return a function that counts the tokens of a text; None if no text is embedded, or without a tokenizer."""
    if not isinstance(origin, Model):
        return None
    counter = load_token_counter(origin)
    return lambda text: counter.count([text])[0]


def lacks_tokenizer(origin: ModelIdentity) -> bool:
    """Check whether texts are embedded by a model whose tokenizer is not on this machine."""
    return not isinstance(origin, Model | OwnVectors)


def _model_of(name: str, options: LoadOptions, *, context: RunContext | None = None) -> Model:
    return find_model(
        name, given=options.given_model, prefixes=options.prefixes, offline=options.offline, context=context
    )


def _own_vectors(options: LoadOptions, sources: Sequence[Source]) -> OwnVectors:
    """Return the vectors that items bring into a new collection, whose dimension the first vector sets."""
    unknown = OwnVectors(dimension=0)
    return replace(unknown, dimension=first_dimension(options.rows(sources), recipe=recipe_of(options, unknown)))


def _vectors_of(info: CollectionInfo) -> OwnVectors:
    """Return the vectors of a collection, with the model that it names."""
    model = info.model or _UNKNOWN
    model = replace(model, dimension=info.dimension or model.dimension)
    is_named = info.stamp is not None or info.default_function
    return OwnVectors.of(model, space=info.space or None, function=None if is_named else info.function)


def _described(vectors: OwnVectors) -> str:
    model = vectors.function or ("an unknown model" if vectors.name == NO_MODEL else vectors.name)
    return f"vectors of {model} with {vectors.dimension} numbers and the distance {vectors.space}"
