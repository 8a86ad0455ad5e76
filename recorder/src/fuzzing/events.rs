//! Events in their general form, out of bytes: few ids, so that events meet each other's spans.

use retake_schemas::event::{
    Annotated, DocumentRole, DropCause, EventBody, Gap, Level, Measured, Payload, Retrieved,
    RetrievedDocument, SpanClosed, SpanOpened, SpanUpdated, Status, Token, TokensSource, Usage,
};
use retake_schemas::{Digest, SpanId, SpanKey, TraceId};

use super::input::Input;

/// One event.
pub(super) fn body(input: &mut Input<'_>) -> EventBody {
    match input.below(11) {
        0..3 => EventBody::SpanOpened(Box::new(opened(input))),
        3..5 => EventBody::SpanClosed(SpanClosed {
            span: key(input),
            busy_ns: input.maybe(Input::signed),
            status: status(input),
            message: input.maybe(Input::text),
        }),
        5 => {
            EventBody::SpanUpdated(SpanUpdated { span: key(input), attributes: input.attributes() })
        }
        6 => EventBody::Token(Token {
            span: key(input),
            index: input.number() as u32,
            count: input.number() as u32,
        }),
        7 => usage(input),
        8 => annotated(input),
        9 => retrieved(input),
        _ => rest(input),
    }
}

fn opened(input: &mut Input<'_>) -> SpanOpened {
    SpanOpened {
        span: key(input),
        parent: input.maybe(span_id),
        name: input.text(),
        target: input.text(),
        level: level(input),
        source_file: input.maybe(Input::text),
        source_line: input.maybe(|input| input.number() as u32),
        thread: input.maybe(Input::text),
        attributes: input.attributes(),
    }
}

fn usage(input: &mut Input<'_>) -> EventBody {
    let source = match input.below(4) {
        0 => TokensSource::Provider,
        1 => TokensSource::Tokenizer,
        2 => TokensSource::Estimate,
        _ => TokensSource::None,
    };
    EventBody::Usage(Usage {
        span: key(input),
        source,
        input: input.maybe(Input::signed),
        output: input.maybe(Input::signed),
        cache_read: input.maybe(Input::signed),
        cache_write: None,
        reasoning: None,
    })
}

fn annotated(input: &mut Input<'_>) -> EventBody {
    EventBody::Annotated(Annotated {
        span: input.maybe(key),
        level: level(input),
        name: if input.flag() { "exception".to_owned() } else { input.text() },
        target: input.text(),
        message: input.maybe(Input::text),
        attributes: input.attributes(),
    })
}

fn retrieved(input: &mut Input<'_>) -> EventBody {
    let role = match input.below(4) {
        0 => DocumentRole::Retrieved,
        1 => DocumentRole::RerankInput,
        2 => DocumentRole::RerankOutput,
        _ => DocumentRole::BatchMember,
    };
    let span = key(input);
    let count = input.below(4);
    let documents = (0..count)
        .map(|_| RetrievedDocument {
            rank: input.number() as u32,
            id: input.text(),
            score: input.maybe(|input| f64::from_bits(input.number())),
            source: input.maybe(Input::text),
            start_char: input.maybe(Input::signed),
            end_char: input.maybe(Input::signed),
            content: input.maybe(|input| Digest::of(&[input.byte()])),
        })
        .collect();
    EventBody::Retrieved(Retrieved { span, role, documents })
}

fn rest(input: &mut Input<'_>) -> EventBody {
    match input.below(3) {
        0 => EventBody::Payload(Payload {
            digest: Digest::of(&[input.byte()]),
            bytes: input.number(),
            media_type: input.text(),
            content: input.maybe(Input::text),
            truncated: input.flag(),
        }),
        1 => EventBody::Measured(Measured {
            name: input.text(),
            unit: input.text(),
            value: f64::from_bits(input.number()),
            attributes: input.attributes(),
        }),
        _ => EventBody::Gap(Gap {
            dropped: input.number(),
            spans: input.number(),
            cause: if input.flag() { DropCause::JournalFull } else { DropCause::Disk },
        }),
    }
}

fn key(input: &mut Input<'_>) -> SpanKey {
    let trace_id = TraceId::from_bytes([input.below(3); 16]);
    SpanKey { trace_id, span_id: span_id(input) }
}

fn span_id(input: &mut Input<'_>) -> SpanId {
    SpanId::from_u64(u64::from(input.below(6)))
}

fn status(input: &mut Input<'_>) -> Status {
    match input.below(4) {
        0 => Status::Ok,
        1 => Status::Error,
        2 => Status::Cancelled,
        _ => Status::Unfinished,
    }
}

fn level(input: &mut Input<'_>) -> Level {
    if input.flag() { Level::Error } else { Level::Info }
}
