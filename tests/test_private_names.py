"""The private parts of chromadb, fastembed and ray that the code relies on: a new version that moves one fails here."""

from __future__ import annotations

import ast
import inspect
import re
import sqlite3
from contextlib import closing
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path

import chromadb
import chromadb.api.client
import pytest
from chromadb.api.fastapi import FastAPI
from chromadb.auth import UserIdentity
from chromadb.config import Settings, System
from fastembed import TextEmbedding
from fastembed.common.preprocessor_utils import load_tokenizer

from upsert_cli.embedding.catalog import DEFAULT_MODEL
from upsert_cli.embedding.models import find_model
from upsert_cli.store.chroma.database import KNOWN_MIGRATIONS, applied_migrations, reading

TABLES = {
    "databases": {"id", "name", "tenant_id"},
    "collections": {"id", "name", "dimension", "database_id", "config_json_str", "schema_str"},
    "collection_metadata": {"collection_id", "key", "str_value", "int_value", "float_value", "bool_value"},
    "segments": {"id", "collection", "scope"},
    "embeddings": {"id", "segment_id", "embedding_id", "seq_id"},
    "embedding_metadata": {"id", "key", "string_value", "int_value", "float_value", "bool_value"},
    "embedding_metadata_array": {"id", "key", "string_value", "int_value", "float_value", "bool_value"},
    "embeddings_queue": {"seq_id", "operation", "topic", "id", "metadata"},
    "migrations": {"dir", "version"},
    "max_seq_id": {"segment_id", "seq_id"},
}  # of chroma.sqlite3, as `store/chroma/database.py` and `tables.py` read it
PRIVATE = re.compile(r"_(?!_|exit$|replace$)\w+")  # but for two public names of the standard library
OWN = {"self", "cls"}


def _moved(package: str, name: str, module: str) -> str:
    return f"{package} {version(package)} no longer has {name}; change {module}, or lower the bound in setup.cfg"


@pytest.fixture(scope="module")
def columns(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Return the columns of each table of a folder that Chroma has just written."""
    folder = tmp_path_factory.mktemp("chroma")
    chromadb.PersistentClient(str(folder)).create_collection("any", embedding_function=None)
    with closing(sqlite3.connect(folder / "chroma.sqlite3")) as database:
        return {table: {name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")} for table in TABLES}


@pytest.mark.parametrize("table", TABLES)
def test_tables_of_chroma(columns: dict[str, set[str]], table: str) -> None:
    """Chroma's database has each table and column that is read with sqlite3."""
    for column in sorted(TABLES[table] - columns[table]):
        pytest.fail(_moved("chromadb", f"column {table}.{column}", "store/chroma/database.py"))


def test_migrations_of_chroma(tmp_path: Path) -> None:
    """The last migrations are known, so that an older version's folder is noticed before it is upgraded."""
    chromadb.PersistentClient(str(tmp_path)).create_collection("any", embedding_function=None)
    with reading(tmp_path) as database:
        found = applied_migrations(database)
    if found != KNOWN_MIGRATIONS:
        pytest.fail(
            f"chromadb {version('chromadb')} has the migrations {found}; write them into store/chroma/database.py"
        )


@pytest.mark.parametrize("name", ["get_user_identity", "_validate_tenant_database"])
def test_hooks_of_chromas_client(name: str) -> None:
    """The client calls, in its constructor, both methods that the client for servers overrides."""
    source = inspect.getsource(chromadb.api.client.Client.__init__)
    if f"self.{name}(" not in source:
        pytest.fail(_moved("chromadb", f"call of Client.{name} in its constructor", "store/chroma/client.py"))


def test_session_of_chromas_client() -> None:
    """The client for servers keeps its HTTP session in an attribute, and an identity takes three fields."""
    settings = Settings.model_construct(chroma_server_host="http://127.0.0.1:9", chroma_server_http_port=0)
    server = FastAPI(System(settings))
    if not hasattr(server, "_session"):
        pytest.fail(_moved("chromadb", "FastAPI._session", "store/chroma/client.py"))
    assert UserIdentity(user_id="", tenant="t", databases=["d"]).tenant == "t"


def test_entries_of_fastembeds_list() -> None:
    """Each entry of fastembed's list has the keys that are read from it."""
    known = {"model", "dim", "sources", "model_file", "additional_files", "size_in_GB", "license", "description"}
    for entry in TextEmbedding.list_supported_models():
        for key in known - set(entry):
            pytest.fail(_moved("fastembed", f"key {key!r} in its list of models", "embedding/fastembed.py"))
        assert "hf" in entry["sources"]


def test_download_of_fastembed() -> None:
    """Downloading takes a folder and the patterns of the weights."""
    parameters = inspect.signature(TextEmbedding.download_files_from_huggingface).parameters
    for name in {"cache_dir", "extra_patterns"} - set(parameters):
        pytest.fail(_moved("fastembed", f"parameter {name} of its download", "embedding/fastembed.py"))


@pytest.mark.usefixtures("model")
def test_parts_of_a_loaded_model() -> None:
    """A loaded model has its tokenizer and session, and its tokenizer can be loaded alone."""
    folder = find_model(DEFAULT_MODEL).folder
    embedding = TextEmbedding(DEFAULT_MODEL, specific_model_path=str(folder), threads=1)
    for name in ("model.tokenizer.to_str", "model.tokenizer.enable_truncation", "model.model.get_providers"):
        try:
            attrgetter(name)(embedding)
        except AttributeError:
            pytest.fail(_moved("fastembed", f"TextEmbedding.{name}", "embedding/fastembed.py"))
    tokenizer, _ = load_tokenizer(Path(folder))
    assert tokenizer.encode("wool").ids


def test_switch_of_rays_worker() -> None:
    """Ray has the switch that keeps the output of workers from standard output."""
    import ray._private.worker as ray_worker

    if not hasattr(ray_worker, "_worker_logs_enabled"):
        pytest.fail(_moved("ray", "ray._private.worker._worker_logs_enabled", "cluster/ray_cluster.py"))


def test_private_names_stand_in_two_modules() -> None:
    """Only the modules that import chromadb and ray touch a private attribute of an object that is not their own."""
    package = Path(__file__).parent.parent / "upsert_cli"
    users = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and PRIVATE.fullmatch(node.attr) and ast.unparse(node.value) not in OWN
    }
    assert users == {"store/chroma/client.py", "cluster/ray_cluster.py"}
