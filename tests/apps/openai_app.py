"""An app of the OpenAI client with OpenTelemetry's own instrumentation.

    python fake_openai.py          # prints its port
    OPENAI_BASE_URL=http://127.0.0.1:PORT/v1 OPENAI_API_KEY=none \
    OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 python openai_app.py

Three questions with an embedding each, a streamed answer, one that is broken off, and two failures.
The last line it prints is JSON: the usage that the service reported to it.
"""

import json

import openai
import telemetry
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

QUESTIONS = ["Why is the sky blue?", "Why is the sea blue?", "Why is grass green?"]


class Totals:
    """Adds up what the service reports."""

    def __init__(self):
        self.prompt = self.completion = self.cached = self.embedding = 0

    def chat(self, usage):
        self.prompt += usage.prompt_tokens
        self.completion += usage.completion_tokens
        self.cached += usage.prompt_tokens_details.cached_tokens


def messages(question):
    system = "Answer in one sentence, from what you are given."
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


def main():
    provider = telemetry.start()
    OpenAIInstrumentor().instrument(tracer_provider=provider)
    client = openai.OpenAI(max_retries=0)
    tracer = provider.get_tracer("app", "1.0")
    totals = Totals()

    for question in QUESTIONS:
        with tracer.start_as_current_span("rag.query"):
            vectors = client.embeddings.create(model="fake-embedding", input=[question])
            totals.embedding += vectors.usage.prompt_tokens
            answer = client.chat.completions.create(
                model="fake-chat", messages=messages(question), temperature=0.2, max_tokens=64
            )
            totals.chat(answer.usage)

    chunks = 0
    options = {"include_usage": True}
    with client.chat.completions.create(
        model="fake-chat", messages=messages(QUESTIONS[0]), stream=True, stream_options=options
    ) as stream:
        for chunk in stream:
            chunks += bool(chunk.choices)
            if chunk.usage:
                totals.chat(chunk.usage)

    # A user who goes away: nobody learns what this one used.
    with client.chat.completions.create(
        model="fake-chat", messages=messages(QUESTIONS[1]), stream=True
    ) as stream:
        for _, _chunk in zip(range(3), stream):
            pass

    failures = []
    for model in ["error-429", "error-503"]:
        try:
            client.chat.completions.create(model=model, messages=messages(QUESTIONS[2]))
        except openai.APIStatusError as error:
            failures.append(error.status_code)

    provider.shutdown()
    print(
        json.dumps(
            {
                "app": "openai",
                "answers": len(QUESTIONS),
                "chunks": chunks,
                "failures": failures,
                "prompt_tokens": totals.prompt,
                "completion_tokens": totals.completion,
                "cached_tokens": totals.cached,
                "embedding_tokens": totals.embedding,
                "llm_calls": len(QUESTIONS) + 4,
            }
        )
    )


if __name__ == "__main__":
    main()
