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

POLICY = "tiled.access_control.access_policies:DummyAccessPolicy"  # keeps tags, refuses nothing


class ManyUsers:
    """Runs ``tiled serve config`` with a user "alice" who can make keys."""

    def __init__(self, folder: Path) -> None:
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

    def key(self, scopes: Sequence[str]) -> str:
        """Return a new API key with these scopes and no others."""
        base = f"{self.uri}/api/v1/auth"
        form = {"username": "alice", "password": "wonderland"}
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
        users = {"users_to_passwords": {"alice": "wonderland"}}
        authenticator = "tiled.authenticators:DictionaryAuthenticator"
        provider = {"provider": "toy", "authenticator": authenticator, "args": users}
        args = {
            "uri": f"sqlite:///{self.folder / 'catalog.db'}",
            "writable_storage": [
                str(self.folder / "data"),
                f"duckdb:///{self.folder / 'tables.duckdb'}",
            ],
            "init_if_not_exists": True,
        }
        return {
            "authentication": {"providers": [provider], "secret_keys": ["x" * 32]},
            "database": {
                "uri": f"sqlite:///{self.folder / 'users.db'}",
                "init_if_not_exists": True,
            },
            "access_control": {"access_policy": POLICY, "args": {}},
            "uvicorn": {"host": "127.0.0.1", "port": self.port, "timeout_graceful_shutdown": 2},
            "trees": [{"path": "/", "tree": "catalog", "args": args}],
            "streaming_cache": {"uri": "memory"},
        }
