"""A LlamaIndex app as people have them: documents, an index, questions. It knows nothing of retake.

    retake record --capture full --run llama -- python examples/llamaindex/app.py

It needs `llama-index-core`, `openinference-instrumentation-llama-index` and the OpenTelemetry SDK with
its OTLP exporter. The models are LlamaIndex's own mocks, so that it needs no network and no key; put
your own in `build`.
"""

from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter

DOCUMENTS = [
    "The sky is blue because air scatters short waves of light more than long ones. "
    "At dusk the light comes through more air, and what is left of it is red.",
    "The sea is blue because water takes in red light, and what is left is blue. "
    "Near the coast it is green, because of what grows in it.",
    "Grass is green because chlorophyll takes in red and blue light. "
    "In autumn it is broken down, and what was hidden behind it shows.",
]
QUESTIONS = ["Why is the sky blue?", "Why is the sea blue?", "Why is grass green?"]


def telemetry():
    """OpenTelemetry as any app sets it up; where spans go is in the environment."""
    from openinference.instrumentation.llama_index import LlamaIndexInstrumentor
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    LlamaIndexInstrumentor().instrument(tracer_provider=provider)
    return provider


def build(top_k=2, chunk_size=64, max_tokens=48):
    """An index over the documents, and an engine that answers questions from it."""
    Settings.llm = MockLLM(max_tokens=max_tokens)
    Settings.embed_model = MockEmbedding(embed_dim=16)
    splitter = SentenceSplitter(chunk_size=chunk_size, chunk_overlap=0)
    documents = [Document(text=text) for text in DOCUMENTS]
    index = VectorStoreIndex.from_documents(documents, transformations=[splitter])
    return index.as_query_engine(similarity_top_k=top_k)


def main():
    provider = telemetry()
    engine = build()
    for question in QUESTIONS:
        print(engine.query(question))
    provider.shutdown()


if __name__ == "__main__":
    main()
