"""A LangChain app: a retrieval chain asked three times, a batch on threads, a stream, and a failure.

    OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 python langchain_app.py

Models are LangChain's own fakes, so it needs no network. The last line it prints is JSON: what it
did, and the tokens that the fake model said it used.
"""

import json

import telemetry
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from openinference.instrumentation.langchain import LangChainInstrumentor

TEXTS = [
    "The sky is blue because air scatters short waves of light.",
    "The sea is blue because water takes in red light.",
    "Grass is green because of chlorophyll.",
]
QUESTIONS = ["Why is the sky blue?", "Why is the sea blue?", "Why is grass green?"]
USAGE = {"input_tokens": 40, "output_tokens": 6, "total_tokens": 46}


def replies():
    """What the model answers, for ever; a new message each time, because each gets an id."""
    while True:
        yield AIMessage("Because of how light is scattered.", usage_metadata=dict(USAGE))


def refuse(_):
    raise ValueError("the answer is empty")


def main():
    provider = telemetry.start()
    LangChainInstrumentor().instrument(tracer_provider=provider)
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=16))
    store.add_documents([Document(text, id=str(n)) for n, text in enumerate(TEXTS)])
    retriever = store.as_retriever(search_kwargs={"k": 2})
    model = GenericFakeChatModel(messages=replies())
    prompt = ChatPromptTemplate.from_template("Answer from {context}: {question}")
    chain = {"context": retriever, "question": RunnablePassthrough()} | prompt | model
    ask = chain | StrOutputParser()

    answers = [ask.invoke(question) for question in QUESTIONS]
    batch = ask.batch(QUESTIONS, config={"max_concurrency": 3})
    chunks = sum(1 for _ in ask.stream(QUESTIONS[0]))

    failure = None
    try:
        (ask | RunnableLambda(refuse)).invoke("Will this fail?")
    except ValueError as error:
        failure = str(error)

    provider.shutdown()
    # Streamed answers of the fake come without usage.
    counted = len(answers) + len(batch) + 1
    totals = {
        "app": "langchain",
        "answers": len(answers),
        "batch": len(batch),
        "chunks": chunks,
        "failure": failure,
        "prompt_tokens": counted * USAGE["input_tokens"],
        "completion_tokens": counted * USAGE["output_tokens"],
        "llm_calls": counted + 1,
    }
    print(json.dumps(totals))


if __name__ == "__main__":
    main()
