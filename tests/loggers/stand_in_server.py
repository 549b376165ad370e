"""A server on this machine that knows of W&B's protocol what a run needs: GraphQL, a stream, and uploads."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Lock, Thread
from typing import Any

ENTITY = {"id": "1", "name": "somebody"}
PROJECT = {"id": "2", "name": "lightning_metakd", "entity": ENTITY}


class StandIn:
    """What was sent, and the answers to it.

    Attributes:
        operations: names of the questions, in their order.
        runs: what is kept of each run, by its id.
        streamed: lines of the history of each run.
        summaries: the last of each run.
        uploads: what was uploaded to each address.
        artifacts: by collection and digest: one is the same whichever run sends it, as W&B has it.
        made: (run, name of an artifact) of outputs that were not there before.
        used: (run, name of an artifact) of inputs.
    """

    def __init__(self) -> None:
        self.operations: list[str] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.streamed: dict[str, list[dict[str, Any]]] = {}
        self.summaries: dict[str, dict[str, Any]] = {}
        self.uploads: dict[str, bytes] = {}
        self.artifacts: dict[tuple[str, str], str] = {}
        self.committed: set[str] = set()
        self.made: list[tuple[str, str]] = []
        self.used: list[tuple[str, str]] = []
        self.address, self.numbers, self.lock = "", count(10), Lock()

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL answer; fields that nobody needs are null."""
        match = re.search(r"\b(?:query|mutation)\s+(\w+)", query)
        name = match[1] if match else "?"
        with self.lock:
            self.operations.append(name)
            method = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
            reply = getattr(self, f"reply_{method}", self.reply_nothing)
            return reply(variables)

    def reply_nothing(self, variables):
        return {}

    def reply_viewer(self, variables):
        flags = json.dumps({"code_saving_enabled": False})
        person = {"id": "1", "entity": "somebody", "username": "somebody", "email": "", "name": ""}
        return {"viewer": {**person, "flags": flags, "teams": {"edges": []}}}

    def reply_server_features_query(self, variables):
        return {"serverInfo": {"features": []}}

    def reply_run_resume_status(self, variables):
        return {"model": {**PROJECT, "bucket": None}}

    def reply_artifact_type(self, variables):
        return {"project": None}  # the collection is new

    def reply_upsert_bucket(self, variables):
        sent = {name: value for name, value in variables.items() if value is not None}
        self.runs.setdefault(variables["name"], {}).update(sent)
        names = {"name": variables["name"], "displayName": variables.get("displayName")}
        others = dict.fromkeys(("description", "sweepName"))
        bucket = {"id": variables["name"], **names, **others, "config": "{}", "project": PROJECT}
        return {"upsertBucket": {"bucket": {**bucket, "historyLineCount": 0}, "inserted": True}}

    def reply_create_run_files(self, variables):
        files = [
            {"name": name, "uploadUrl": f"{self.address}/upload/run/{name}"}
            for name in variables["files"]
        ]
        made = {"runID": variables["run"], "uploadHeaders": [], "files": files}
        return {"createRunFiles": made}

    def reply_create_artifact(self, variables):
        sent = variables["input"]
        collection = sent["artifactCollectionName"]
        key = (collection, sent["digest"])
        if key not in self.artifacts:
            self.artifacts[key] = str(next(self.numbers))
            self.made.append((sent["runName"], collection))
        number = self.artifacts[key]
        state = "COMMITTED" if number in self.committed else "PENDING"
        last = {"latestArtifact": {"id": number} if number in self.committed else None}
        artifact = {"id": number, "state": state, "artifactSequence": last}
        return {"createArtifact": {"artifact": artifact}}

    def reply_create_artifact_manifest(self, variables):
        return {"createArtifactManifest": self.manifest(variables["artifactID"])}

    def reply_update_artifact_manifest(self, variables):
        return {"updateArtifactManifest": self.manifest(variables["artifactManifestID"])}

    def manifest(self, number):
        url = f"{self.address}/upload/{number}/manifest"
        file = {"id": f"f{number}", "uploadUrl": url, "uploadHeaders": []}
        return {"artifactManifest": {"id": number, "file": file}}

    def reply_create_artifact_files(self, variables):
        edges = []
        for file in variables["input"]["artifactFiles"]:
            number, path = file["artifactID"], file["name"]
            node = {"storagePath": path, "uploadUrl": f"{self.address}/upload/{number}/{path}"}
            others = {"uploadHeaders": [], "uploadMultipartUrls": None, "artifact": {"id": number}}
            edges.append({"node": node | others})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def reply_commit_artifact(self, variables):
        number = variables["artifactID"]
        self.committed.add(number)
        return {"commitArtifact": {"artifact": {"id": number, "digest": ""}}}

    def reply_use_artifact(self, variables):
        sent = variables["input"]
        (name,) = [key[0] for key, number in self.artifacts.items() if number == sent["artifactID"]]
        self.used.append((sent["runName"], name))
        return {"useArtifact": {"artifact": {"id": sent["artifactID"]}}}

    def stream(self, path: str, sent: dict[str, Any]) -> None:
        """Keep what a run streams."""
        run = path.split("/")[-2]
        files = sent.get("files") or {}
        for line in files.get("wandb-history.jsonl", {}).get("content", []):
            self.streamed.setdefault(run, []).append(json.loads(line))
        for line in files.get("wandb-summary.json", {}).get("content", []):
            self.summaries[run] = json.loads(line)


class Handler(BaseHTTPRequestHandler):
    """Hands requests to the stand-in of the server."""

    protocol_version = "HTTP/1.1"

    def body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def respond(self, answer: Any) -> None:
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_POST(self):
        body, stand_in = self.body(), self.server.stand_in
        if self.path == "/graphql":
            sent = json.loads(body)
            self.respond({"data": stand_in.answer(sent["query"], sent.get("variables") or {})})
            return
        if self.path.endswith("/file_stream"):
            stand_in.stream(self.path, json.loads(body))
        self.respond({})  # to its telemetry too

    def do_PUT(self):
        self.server.stand_in.uploads[self.path.removeprefix("/upload/")] = self.body()
        self.respond({})

    def log_message(self, *words):
        pass


class Server(ThreadingHTTPServer):
    """Says nothing of connections that are cut off, which is how W&B ends."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


@contextmanager
def stand_in_server() -> Iterator[StandIn]:
    """The server, at its address until the block ends."""
    server = Server(("127.0.0.1", 0), Handler)
    server.stand_in = stand_in = StandIn()
    stand_in.address = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
