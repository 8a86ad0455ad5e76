"""Takes OTLP/HTTP trace requests and counts what is in them; to try an app without retake.

    sink.py APP.py [ARGUMENT...]

Runs the app with the environment that sends its spans here, then prints what it printed last and
what arrived, both as JSON. For `openai_app.py` it starts `fake_openai.py` as well. Needs
`opentelemetry-proto`; loopback only.
"""

import gzip
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Sink(ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.spans, self.resources = [], []


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.server.resources.append(resource.resource)
                for scope in resource.scope_spans:
                    self.server.spans.extend(scope.spans)
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Standard output is the report."""


def attribute(attributes, *names):
    for entry in attributes:
        if entry.key in names:
            value = entry.value
            return getattr(value, value.WhichOneof("value"))
    return None


def report(sink):
    ids = {(span.trace_id, span.span_id) for span in sink.spans}
    orphans = [
        span.name
        for span in sink.spans
        if span.parent_span_id and (span.trace_id, span.parent_span_id) not in ids
    ]
    kind = ("openinference.span.kind", "gen_ai.operation.name")
    tokens = {
        which: sum(int(attribute(span.attributes, *names) or 0) for span in sink.spans)
        for which, names in {
            "input": ("gen_ai.usage.input_tokens", "llm.token_count.prompt"),
            "output": ("gen_ai.usage.output_tokens", "llm.token_count.completion"),
        }.items()
    }
    return {
        "spans": len(sink.spans),
        "traces": len({span.trace_id for span in sink.spans}),
        "errors": sum(span.status.code == 2 for span in sink.spans),
        "orphans": orphans,
        "kinds": Counter(str(attribute(span.attributes, *kind)) for span in sink.spans),
        "events": Counter(event.name for span in sink.spans for event in span.events),
        # A plain sum; spans nest, so a call may be in it more than once.
        "tokens_on_spans": tokens,
        "services": sorted({str(attribute(r.attributes, "service.name")) for r in sink.resources}),
    }


def main(app, arguments):
    sink = Sink()
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    environment = os.environ | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{sink.server_address[1]}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=try",
    }
    fake = None
    if app.name == "openai_app.py":
        command = [sys.executable, app.with_name("fake_openai.py")]
        fake = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        port = fake.stdout.readline().strip()
        environment |= {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": "none"}
    try:
        run = subprocess.run(
            [sys.executable, app, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    finally:
        if fake:
            fake.terminate()
            fake.wait()
    print(run.stdout.splitlines()[-1])
    print(json.dumps(report(sink)))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:])
