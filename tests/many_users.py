"""A Tiled server with users, whose API keys have scopes and whose nodes have access tags."""

import json
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import httpx

POLICIES = "tiled.access_control.access_policies"
LAX = {"access_policy": f"{POLICIES}:DummyAccessPolicy", "args": {}}  # keeps tags, refuses nothing
STRICT = {
    "access_policy": f"{POLICIES}:TagBasedAccessPolicy",
    "args": {
        "provider": "toy",
        "access_tags_parser": "tiled.access_control.access_tags:AccessTagsParser",
    },
}
PASSWORDS = {"alice": "wonderland", "bob": "builder"}
EVERYBODY = "everybody"  # the tag of the root


class ManyUsers:
    """Runs ``tiled serve config`` with users "alice" and "bob" who can make keys.

    Where it is strict, a user may do with a node what `grant` allows for any of its tags.
    """

    def __init__(self, folder: Path, *, strict: bool = False) -> None:
        self._strict = strict
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        (folder / "data").mkdir(parents=True)

    def __enter__(self) -> "ManyUsers":
        (self.folder / "config.json").write_text(json.dumps(self._config()))
        self._log = (self.folder / "server.log").open("wb")
        command = [sys.executable, "-P", "-m", "tiled", "serve", "config"]
        self._process = subprocess.Popen(
            [*command, str(self.folder / "config.json")], stdout=self._log, stderr=self._log
        )
        end = time.monotonic() + 90
        while not self._healthy():
            if self._process.poll() is not None or time.monotonic() > end:
                self.__exit__()
                raise RuntimeError((self.folder / "server.log").read_text()[-2000:])
            time.sleep(0.1)
        return self

    def __exit__(self, *args: object) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()

    def define_tags(self, *names: str) -> None:
        """Make access tags known to the catalogue."""
        with closing(sqlite3.connect(self.folder / "catalog.db", timeout=30)) as database:
            rows = [(name,) for name in names]
            database.executemany("INSERT INTO access_tags (name, is_public) VALUES (?, 0)", rows)
            database.commit()

    def grant(self, tag: str, user: str, scopes: Sequence[str], *, owner: bool = False) -> None:
        """Let a user do something with what has a tag; an owner may give it to nodes."""
        with closing(sqlite3.connect(self.folder / "catalog.db", timeout=30)) as database:
            names = [("access_tags", "name, is_public", "?, 0", tag)]
            names.append(("access_tags_principals", "name", "?", user))
            ids: list[int] = []
            for table, columns, values, name in names:
                statement = f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({values})"
                database.execute(statement, (name,))
                found = database.execute(f"SELECT id FROM {table} WHERE name = ?", (name,))
                ids.append(int(found.fetchone()[0]))
            columns = "(tag_id, principal_id, scope) VALUES (?, ?, ?)"
            rows = [(*ids, scope) for scope in scopes]
            database.executemany(f"INSERT INTO access_grants {columns}", rows)
            if owner:
                columns = "(tag_id, principal_id) VALUES (?, ?)"
                database.execute(f"INSERT INTO access_tag_owners_association {columns}", ids)
            database.commit()

    def key(self, scopes: Sequence[str], user: str = "alice") -> str:
        """Return a new API key with these scopes and no others."""
        base = f"{self.uri}/api/v1/auth"
        form = {"username": user, "password": PASSWORDS[user]}
        login = httpx.post(f"{base}/provider/toy/token", data=form, trust_env=False)
        token = login.raise_for_status().json()["access_token"]
        answer = httpx.post(
            f"{base}/apikey",
            headers={"Authorization": f"Bearer {token}"},
            json={"scopes": list(scopes), "expires_in": 3600, "note": "test"},
            trust_env=False,
        )
        return answer.raise_for_status().json()["secret"]

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"{self.uri}/healthz", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def _config(self) -> dict:
        users = {"users_to_passwords": PASSWORDS}
        authenticator = "tiled.authenticators:DictionaryAuthenticator"
        provider = {"provider": "toy", "authenticator": authenticator, "args": users}
        args = {
            "uri": f"sqlite:///{self.folder / 'catalog.db'}",
            "writable_storage": [
                str(self.folder / "data"),
                f"duckdb:///{self.folder / 'tables.duckdb'}",
            ],
            "init_if_not_exists": True,
            **({"top_level_access_tags": [EVERYBODY]} if self._strict else {}),
        }
        return {
            "authentication": {"providers": [provider], "secret_keys": ["x" * 32]},
            "database": {
                "uri": f"sqlite:///{self.folder / 'users.db'}",
                "init_if_not_exists": True,
            },
            "access_control": STRICT if self._strict else LAX,
            "uvicorn": {"host": "127.0.0.1", "port": self.port, "timeout_graceful_shutdown": 2},
            "trees": [{"path": "/", "tree": "catalog", "args": args}],
            "streaming_cache": {"uri": "memory"},
        }
