"""Where Chroma is -> a client that is connected to it.

The only module that imports chromadb.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from upsert_cli.lean_imports import lean_imports

if TYPE_CHECKING:
    from chromadb.api.client import Client
    from chromadb.auth import UserIdentity

    from upsert_cli.store.chroma.http_session import HttpSession

# Settings are constructed from the defaults alone: variables of the environment or a .env file cannot redirect them.


def connect_folder(path: str) -> Client:
    """Opens the Chroma in a folder."""
    with lean_imports():
        import chromadb
        from chromadb.config import Settings

    settings = Settings.model_construct(anonymized_telemetry=False)
    return cast("Client", chromadb.PersistentClient(path, settings=settings))


def connect_server(session: HttpSession, url: str, *, tenant: str, database: str) -> Client:
    """Connects to a Chroma server through a session of ours."""
    with lean_imports():
        import chromadb.api.client
        from chromadb.auth import UserIdentity
        from chromadb.config import Settings

    class PatientClient(chromadb.api.client.Client):
        """Asks everything through our session, from the first question on."""

        def get_user_identity(self) -> UserIdentity:
            """Is what the constructor asks before anything else; who we are is known, so no request is made."""
            self._server._session.close()  # type: ignore[attr-defined]  # there is no other way
            self._server._session = session  # type: ignore[attr-defined]
            return UserIdentity(user_id="", tenant=tenant, databases=[database])

        def _validate_tenant_database(self, tenant: str, database: str) -> None:
            """Is left out: that they are there was asked before, and this would ask through a session of its own."""

    settings = Settings.model_construct(
        anonymized_telemetry=False,
        chroma_api_impl="chromadb.api.fastapi.FastAPI",
        chroma_server_host=url,
        chroma_server_http_port=0,  # the address has it
    )
    return PatientClient(tenant=tenant, database=database, settings=settings)
