"""Realistic OTLP bodies, made here: requests of a RAG app in OpenTelemetry's GenAI words.

A template is encoded once. Ids are eight-byte groups at known places, so a new body is a copy with
other ids, and making bodies costs the machine little while it is being measured.
"""

import random
import struct
import time

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

WORDS = (
    "the invoice of a customer shows which contract applies to a shipment and when the warehouse "
    "has to answer questions about late deliveries returns and refunds in every country"
).split()

# Name, kind, parent (position in the list), start and end as parts of the request.
TREE = [
    ("rag.query", "chain", None, 0.0, 1.0),
    ("embeddings fake-embedding", "embeddings", 0, 0.01, 0.06),
    ("retrieve", "chain", 0, 0.07, 0.2),
    ("pgvector.search", "retriever", 2, 0.08, 0.19),
    ("rerank", "reranker", 0, 0.2, 0.3),
    ("chat fake-chat", "chat", 0, 0.31, 0.93),
    ("execute_tool lookup", "execute_tool", 5, 0.4, 0.45),
    ("guardrail", "guardrail", 0, 0.94, 0.99),
]
SPANS_PER_TRACE = len(TREE)


def text(random_, words):
    return " ".join(random_.choice(WORDS) for _ in range(words))


def attributes(random_, kind):
    """What instrumentations put on a span of the kind; prompts and answers are most of it."""
    if kind == "chat":
        prompt, answer = text(random_, 180), text(random_, 60)
        return {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "fake-chat",
            "gen_ai.response.model": "fake-chat-2026",
            "gen_ai.request.temperature": 0.2,
            "gen_ai.request.max_tokens": 256,
            "gen_ai.usage.input_tokens": 180,
            "gen_ai.usage.output_tokens": 60,
            "gen_ai.response.id": f"chatcmpl-{random_.getrandbits(64):x}",
            "gen_ai.input.messages": f'[{{"role":"user","parts":[{{"type":"text","content":"{prompt}"}}]}}]',
            "gen_ai.output.messages": f'[{{"role":"assistant","parts":[{{"type":"text","content":"{answer}"}}]}}]',
        }
    if kind == "embeddings":
        return {
            "gen_ai.operation.name": "embeddings",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "fake-embedding",
            "gen_ai.usage.input_tokens": 12,
            "gen_ai.embeddings.dimension.count": 384,
        }
    if kind in ("retriever", "reranker"):
        documents = {}
        for rank in range(4):
            key = f"retrieval.documents.{rank}.document"
            documents[f"{key}.id"] = f"doc-{random_.randrange(5000)}"
            documents[f"{key}.score"] = random_.random()
            documents[f"{key}.content"] = text(random_, 40)
        return {"openinference.span.kind": kind.upper(), "input.value": text(random_, 9)} | documents
    if kind == "execute_tool":
        return {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "lookup"}
    return {
        "openinference.span.kind": kind.upper(),
        "input.value": text(random_, 9),
        "session.id": f"session-{random_.randrange(200)}",
    }


def put(entries, key, value):
    entry = entries.add(key=key)
    if isinstance(value, str):
        entry.value.string_value = value
    elif isinstance(value, float):
        entry.value.double_value = value
    else:
        entry.value.int_value = value


class Bodies:
    """Bodies of `traces` requests each, all different in their ids."""

    def __init__(self, traces, seed):
        self.spans = traces * SPANS_PER_TRACE
        random_ = random.Random(seed)
        request = ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        put(resource.resource.attributes, "service.name", "bench")
        put(resource.resource.attributes, "service.version", "1.0")
        scope = resource.scope_spans.add()
        scope.scope.name = "bench.app"
        now = time.time_ns()
        marks = []
        for _ in range(traces):
            # Ids that occur once in the template, to be found again.
            trace_id = random_.randbytes(16)
            ids = [random_.randbytes(8) for _ in TREE]
            marks += [trace_id[:8], trace_id[8:], *ids]
            took = int(random_.lognormvariate(20.7, 0.5))
            for at, (name, kind, parent, begin, end) in enumerate(TREE):
                span = scope.spans.add(trace_id=trace_id, span_id=ids[at], name=name, kind=1)
                if parent is not None:
                    span.parent_span_id = ids[parent]
                span.start_time_unix_nano = now + int(took * begin)
                span.end_time_unix_nano = now + int(took * end)
                for key, value in attributes(random_, kind).items():
                    put(span.attributes, key, value)
        self.template = request.SerializeToString()
        self.places = []
        for mark in marks:
            at = self.template.find(mark)
            while at >= 0:
                self.places.append((at, int.from_bytes(mark, "big")))
                at = self.template.find(mark, at + 1)

    def body(self, number):
        """The body of that number; equal numbers give equal bodies."""
        # An odd multiplier moves every id to another one, the same for child and parent.
        other = (number * 0x9E3779B97F4A7C15) & 0xFFFF_FFFF_FFFF_FFFF
        body = bytearray(self.template)
        for at, mark in self.places:
            struct.pack_into(">Q", body, at, (mark ^ other) or 1)
        return bytes(body)
