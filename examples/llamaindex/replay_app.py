"""The same app as a target of replays: what it was asked, asked again with other settings.

    retake replay run llama --target-cmd "python examples/llamaindex/replay_app.py" --set top_k=1

`app.py` is imported as it is. Its spans become parts of the operations that retake records.
"""

import app
import replay_target

DEFAULTS = {"top_k": 2, "chunk_size": 64, "max_tokens": 48}


def start(settings):
    """Builds the app with `settings`; gives all settings in force and what answers a question."""
    unknown = settings.keys() - DEFAULTS.keys()
    if unknown:
        raise ValueError(f"no setting {', '.join(sorted(unknown))}; there are {', '.join(DEFAULTS)}")
    in_force = {**DEFAULTS, **settings}
    engine = app.build(**in_force)

    def answer(kind, question):
        if not isinstance(question, str):
            raise replay_target.Refused(f"a question is text, and {kind} has {type(question).__name__}")
        return str(engine.query(question))

    return in_force, answer


if __name__ == "__main__":
    provider = app.telemetry()
    replay_target.serve(start, name="llamaindex app")
    provider.shutdown()
