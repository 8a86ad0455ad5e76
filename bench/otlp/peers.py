"""Receivers of OTLP to compare: how each is installed, started, asked, and ended."""

import http.client
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import load

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retake" / "bench-otlp"
# A peer that answers no request after this long has not started.
START_SECS = 180
# How long stored spans may take to appear after the last answer, and how long nothing may happen.
SETTLE_SECS = 300
STALL_SECS = 60


class Unavailable(Exception):
    """A peer cannot take part, and why."""


class Peer:
    """A receiver. A subclass says how to install and start it, and how to count what it stored."""

    name = ""
    headers = {}

    def install(self):
        """Makes sure it is there; says its version."""
        raise NotImplementedError

    def command(self, port, folder):
        raise NotImplementedError

    def environment(self, port, folder):
        return {}

    def stored(self, folder):
        """Spans that can be read back, or None where nobody can say."""
        raise NotImplementedError


class Python(Peer):
    """A peer from Python's package index, in a virtual environment of its own."""

    packages = ()

    def folder(self):
        return CACHE / self.name

    def python(self):
        return self.folder() / "bin" / "python"

    def install(self):
        ready = self.folder() / ".ready"
        wanted = " ".join(self.packages)
        if not ready.exists() or ready.read_text() != wanted:
            print(f"installing {wanted}", file=sys.stderr, flush=True)
            shutil.rmtree(self.folder(), ignore_errors=True)
            try:
                subprocess.run([sys.executable, "-m", "venv", self.folder()], check=True)
                pip = [self.python(), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
                subprocess.run([*pip, *self.packages], check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                raise Unavailable(f"could not be installed: {error}") from error
            ready.write_text(wanted)
        return wanted


class Phoenix(Python):
    name = "phoenix"
    packages = ("arize-phoenix==20.26.1",)

    def command(self, port, folder):
        return [self.python(), "-m", "phoenix.server.main", "serve"]

    def environment(self, port, folder):
        return {
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": str(port),
            "PHOENIX_GRPC_PORT": str(free_port()),
            "PHOENIX_WORKING_DIR": str(folder),
            "PHOENIX_TELEMETRY_ENABLED": "false",
        }

    def stored(self, folder):
        return rows(folder / "phoenix.db", "spans")


class MLflow(Python):
    name = "mlflow"
    packages = ("mlflow==3.17.2",)
    headers = {"x-mlflow-experiment-id": "0"}

    def command(self, port, folder):
        uri = f"sqlite:///{folder}/mlflow.db"
        address = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        stores = ["--backend-store-uri", uri, "--artifacts-destination", str(folder / "artifacts")]
        return [self.python(), "-m", "mlflow", "server", *address, *stores]

    def environment(self, port, folder):
        return {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}

    def stored(self, folder):
        return rows(folder / "mlflow.db", "spans")


class Retake(Peer):
    """The binary that `RETAKE_BIN` names, keeping texts as the others do."""

    name = "retake"
    sync = "batch"

    def binary(self):
        return os.environ.get("RETAKE_BIN", "")

    def install(self):
        if not self.binary():
            raise Unavailable("RETAKE_BIN names no binary")
        try:
            version, _ = [
                subprocess.run([self.binary(), *asked], check=True, capture_output=True, text=True)
                for asked in (["--version"], ["serve", "--help"])
            ]
        except OSError as error:
            raise Unavailable(f"RETAKE_BIN cannot be started: {error}") from error
        except subprocess.CalledProcessError as error:
            raise Unavailable("RETAKE_BIN knows no `serve`") from error
        return version.stdout.strip()

    def command(self, port, folder):
        # Any port for gRPC: the usual one may be taken.
        addresses = ["--listen", f"127.0.0.1:{port}", "--grpc", "127.0.0.1:0"]
        kept = ["--store", folder, "--capture", "full", "--sync", self.sync]
        return [self.binary(), "serve", *addresses, *kept]

    def stored(self, folder):
        sql = "select count(*) as n from spans"
        command = [self.binary(), "sql", sql, "--store", str(folder), "--format", "csv"]
        asked = subprocess.run(command, capture_output=True, text=True)
        lines = asked.stdout.split()
        return int(lines[-1]) if asked.returncode == 0 and lines and lines[-1].isdigit() else None


class RetakeNever(Retake):
    """The same without waiting for the disk before an answer."""

    name = "retake-sync-never"
    sync = "never"


ALL = [Retake(), RetakeNever(), Phoenix(), MLflow()]


class Running:
    """A peer that was started, with a folder of its own for what it stores."""

    def __init__(self, peer, folder, first_body):
        self.peer, self.folder, self.port = peer, folder, free_port()
        folder.mkdir(parents=True)
        self.log = (folder.parent / f"{folder.name}.log").open("wb")
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        begin = time.perf_counter()
        self.process = subprocess.Popen(
            peer.command(self.port, folder),
            env=environment | peer.environment(self.port, folder),
            stdout=self.log,
            stderr=self.log,
            cwd=folder,
            # A group of its own, so that its workers end with it and nothing else does.
            start_new_session=True,
        )
        self.start_secs = self.wait(begin, first_body)

    def wait(self, begin, body):
        """Seconds until it acknowledges a request."""
        while time.perf_counter() - begin < START_SECS:
            if self.process.poll() is not None:
                raise Unavailable(f"ended at once with {self.process.returncode}, see {self.log.name}")
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            if load.post(connection, body, self.peer.headers) == 200:
                connection.close()
                return time.perf_counter() - begin
            connection.close()
            time.sleep(0.05)
        self.end()
        raise Unavailable(f"took no request in {START_SECS} s, see {self.log.name}")

    def memory_bytes(self):
        """Memory of the process and all below it; what they share is counted once."""
        children = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                after = stat.read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            children.setdefault(int(after[1]), []).append(int(stat.parent.name))
        total, waiting = 0, [self.process.pid]
        while waiting:
            pid = waiting.pop()
            waiting += children.get(pid, [])
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += sum(
                int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:")
            )
        return total

    def settled(self, expected):
        """Waits until what was acknowledged is stored. Spans stored, and seconds waited; None for
        the seconds if it gave up."""
        last, since, begin = None, time.monotonic(), time.monotonic()
        while True:
            stored = self.peer.stored(self.folder)
            now = time.monotonic()
            if stored is None or stored >= expected:
                return stored, now - begin if stored is not None else None
            if stored != last:
                last, since = stored, now
            if now - begin > SETTLE_SECS or now - since > STALL_SECS:
                return stored, None
            time.sleep(0.5)

    def end(self):
        """Ends the process and its workers, as its user would, and takes what is left by force."""
        for sent in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sent)
                self.process.wait(timeout=60)
                break
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                break
        self.log.close()

    def disk_bytes(self):
        files = (path for path in self.folder.rglob("*") if path.is_file())
        # Blocks, not lengths: a file that is allocated and not filled takes less than it says.
        return sum(path.stat().st_blocks * 512 for path in files)


def rows(database, table):
    """Rows of a table of an SQLite file that somebody else writes."""
    if not database.exists():
        return None
    try:
        connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)
        try:
            return connection.execute(f"select count(*) from {table}").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.Error:
        return None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
