"""A LlamaIndex app: an index, three questions, a streamed answer, and a failure.

    OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 python llamaindex_app.py

Models are LlamaIndex's own mocks, so it needs no network. The last line it prints is JSON: tokens as
LlamaIndex's TokenCountingHandler counted them, which its spans do not say.
"""

import json

import telemetry
from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from openinference.instrumentation.llama_index import LlamaIndexInstrumentor

DOCUMENTS = {
    "sky": "The sky is blue because air scatters short waves of light more than long ones.",
    "sea": "The sea is blue because water takes in red light, and what is left is blue.",
    "grass": "Grass is green because chlorophyll takes in red and blue light.",
}
QUESTIONS = ["Why is the sky blue?", "Why is the sea blue?", "Why is grass green?"]


class BrokenLLM(MockLLM):
    """A model whose service is overloaded."""

    @llm_completion_callback()
    def complete(self, prompt, formatted=False, **kwargs):
        raise RuntimeError("upstream 503: model overloaded")


def main():
    provider = telemetry.start()
    LlamaIndexInstrumentor().instrument(tracer_provider=provider)
    # Its default tokenizer, whose vocabulary comes with the package.
    counter = TokenCountingHandler()
    Settings.callback_manager = CallbackManager([counter])
    Settings.llm = MockLLM(max_tokens=48)
    Settings.embed_model = MockEmbedding(embed_dim=16)

    documents = [Document(text=text, id_=name) for name, text in DOCUMENTS.items()]
    index = VectorStoreIndex.from_documents(documents)
    # All of them: mock vectors are equal, so which two would be found is a matter of chance.
    found = len(DOCUMENTS)
    engine = index.as_query_engine(similarity_top_k=found)
    answers = [str(engine.query(question)) for question in QUESTIONS]

    streamed = index.as_query_engine(similarity_top_k=found, streaming=True).query(QUESTIONS[0])
    chunks = sum(1 for _ in streamed.response_gen)

    failure = None
    try:
        index.as_query_engine(similarity_top_k=found, llm=BrokenLLM()).query("Will this fail?")
    except RuntimeError as error:
        failure = str(error)

    provider.shutdown()
    totals = {
        "app": "llamaindex",
        "answers": len(answers),
        "chunks": chunks,
        "failure": failure,
        "prompt_tokens": counter.prompt_llm_token_count,
        "completion_tokens": counter.completion_llm_token_count,
        "embedding_tokens": counter.total_embedding_token_count,
        "llm_calls": len(counter.llm_token_counts),
    }
    print(json.dumps(totals))


if __name__ == "__main__":
    main()
