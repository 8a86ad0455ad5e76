//! Keys and tokens out of events that come in their general form.

use std::borrow::Cow;

use retake_schemas::{Attributes, EventBody, Value};

use super::Redactor;

impl Redactor {
    /// The event without keys and tokens in its name, message and attributes; the event itself
    /// when it has none.
    pub(crate) fn scrub_event<'a>(&self, body: &'a EventBody) -> Cow<'a, EventBody> {
        let is_clean = match body {
            EventBody::SpanOpened(opened) => {
                self.is_clean(&opened.name) && self.are_clean(&opened.attributes)
            }
            EventBody::SpanUpdated(update) => self.are_clean(&update.attributes),
            EventBody::SpanClosed(closed) => {
                closed.message.as_deref().is_none_or(|m| self.is_clean(m))
            }
            EventBody::Annotated(line) => {
                line.message.as_deref().is_none_or(|m| self.is_clean(m))
                    && self.are_clean(&line.attributes)
            }
            _ => true,
        };
        if is_clean { Cow::Borrowed(body) } else { Cow::Owned(self.scrubbed(body.clone())) }
    }

    fn scrubbed(&self, mut body: EventBody) -> EventBody {
        match &mut body {
            EventBody::SpanOpened(opened) => {
                self.scrub_in_place(&mut opened.name);
                self.scrub_values(&mut opened.attributes);
            }
            EventBody::SpanUpdated(update) => self.scrub_values(&mut update.attributes),
            EventBody::SpanClosed(closed) => {
                closed.message.iter_mut().for_each(|message| self.scrub_in_place(message));
            }
            EventBody::Annotated(line) => {
                line.message.iter_mut().for_each(|message| self.scrub_in_place(message));
                self.scrub_values(&mut line.attributes);
            }
            _ => {}
        }
        body
    }

    fn is_clean(&self, text: &str) -> bool {
        matches!(self.scrub(text), Cow::Borrowed(_))
    }

    fn are_clean(&self, attributes: &Attributes) -> bool {
        attributes.iter().all(|(key, value)| match value {
            Value::Str(text) => matches!(self.scrub_attribute(key, text), Cow::Borrowed(_)),
            Value::List(items) => {
                items.iter().all(|item| !matches!(item, Value::Str(text) if !self.is_clean(text)))
            }
            _ => true,
        })
    }

    fn scrub_values(&self, attributes: &mut Attributes) {
        for (key, value) in attributes {
            match value {
                Value::Str(text) => {
                    if let Cow::Owned(clean) = self.scrub_attribute(key, text) {
                        *text = clean;
                    }
                }
                Value::List(items) => {
                    for item in items {
                        if let Value::Str(text) = item {
                            self.scrub_in_place(text);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn scrub_in_place(&self, text: &mut String) {
        if let Cow::Owned(clean) = self.scrub(text) {
            *text = clean;
        }
    }
}

#[cfg(test)]
mod tests {
    use retake_schemas::event::{Annotated, Level};

    use super::*;

    #[test]
    fn an_event_loses_its_keys_and_keeps_the_rest() {
        let redactor = Redactor::default();
        let line = |message: &str, attributes: Attributes| {
            EventBody::Annotated(Annotated {
                span: None,
                level: Level::Info,
                name: "n".into(),
                target: "t".into(),
                message: Some(message.into()),
                attributes,
            })
        };
        let clean = line("nothing here", vec![("top_k".into(), Value::Int(8))]);
        assert!(matches!(redactor.scrub_event(&clean), Cow::Borrowed(_)));
        let key = "AKIAIOSFODNN7EXAMPLE";
        let dirty = line(
            &format!("used {key}"),
            vec![("list".into(), Value::List(vec![Value::Str(key.into())]))],
        );
        let scrubbed = format!("{:?}", redactor.scrub_event(&dirty));
        assert!(!scrubbed.contains(key) && scrubbed.contains("used [redacted:"), "{scrubbed}");
    }
}
