"""Reads exports of a run with the formats' own libraries, and says what is in them.

    read_export.py FOLDER

FOLDER holds `run.pftrace`, `run.json` (Trace Event), `run.jsonl` (OTLP/JSON), and `run.pb` (OTLP
protobuf, one body). Needs the packages `perfetto` and `opentelemetry-proto`. Prints one JSON object;
fails when a file breaks a rule of its format.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as perfetto


def perfetto_slices(data):
    """Names of slices, built as trace processor builds them: by track and time, stable."""
    trace = perfetto.Trace.FromString(data)
    unknown = [p for p in trace.packet if p.FindInitializationErrors()]
    assert not unknown, unknown
    tracks, names, events = {}, {}, defaultdict(list)
    for packet in trace.packet:
        if packet.sequence_flags & packet.SEQ_INCREMENTAL_STATE_CLEARED:
            names.clear()
        for entry in packet.interned_data.event_names:
            names[entry.iid] = entry.name
        if packet.HasField("track_descriptor"):
            tracks[packet.track_descriptor.uuid] = packet.track_descriptor
        if packet.HasField("track_event"):
            event = packet.track_event
            assert event.track_uuid in tracks
            events[event.track_uuid].append((packet.timestamp, event.type, names.get(event.name_iid)))
    slices = []
    for row in events.values():
        open_slices = []
        for _, kind, name in sorted(row, key=lambda event: event[0]):
            if kind == perfetto.TrackEvent.TYPE_SLICE_BEGIN:
                open_slices.append(name)
                slices.append(name)
            elif kind == perfetto.TrackEvent.TYPE_SLICE_END:
                open_slices.pop()
        assert not open_slices, open_slices
    clocks = trace.packet[0].clock_snapshot
    return sorted(slices), {clock.clock_id: clock.timestamp for clock in clocks.clocks}


def otlp_names(requests):
    return sorted(
        span.name
        for request in requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    )


def otlp_json_names(lines):
    return sorted(
        span["name"]
        for line in lines
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    )


def main(folder):
    slices, clocks = perfetto_slices((folder / "run.pftrace").read_bytes())
    chrome = json.loads((folder / "run.json").read_text())
    body = ExportTraceServiceRequest.FromString((folder / "run.pb").read_bytes())
    # What a library does not know it keeps as unknown fields; a right file has none, so writing it
    # anew with only known fields changes nothing of its length.
    before = body.ByteSize()
    body.DiscardUnknownFields()
    assert body.ByteSize() == before
    print(
        json.dumps(
            {
                "perfetto": slices,
                "clocks": clocks,
                "chrome": sorted(e["name"] for e in chrome["traceEvents"] if e["ph"] == "X"),
                "otlp": otlp_names([body]),
                "otlp_json": otlp_json_names((folder / "run.jsonl").read_text().splitlines()),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
