//! Typed fields out of `tracing`'s visitor.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::panic::AssertUnwindSafe;

use retake_schemas::{Attributes, Value};
use tracing::field::{Field, Visit};

/// Collects fields with their types; the `message` of an event apart.
#[derive(Debug, Default)]
pub(super) struct FieldVisitor {
    pub(super) attributes: Attributes,
    pub(super) message: Option<String>,
}

impl FieldVisitor {
    pub(super) fn find(&self, name: &str) -> Option<&Value> {
        self.attributes.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    fn push(&mut self, field: &Field, value: Value) {
        if field.name() == "message" {
            self.message = Some(value.to_text());
        } else {
            self.attributes.push((field.name().into(), value));
        }
    }
}

impl Visit for FieldVisitor {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value.into());
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        let value = i64::try_from(value).map_or_else(|_| value.to_string().into(), Value::from);
        self.push(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        let value = i64::try_from(value).map_or_else(|_| value.to_string().into(), Value::from);
        self.push(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, cut(value).into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.push(field, cut(&value.to_string()).into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A Debug of the program's own may panic; that must not take the program down here, where
        // without us it would never have been called.
        let text = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let mut text = String::new();
            write!(text, "{value:?}").map(|()| text)
        }));
        let text = match text {
            Ok(Ok(text)) => text,
            Ok(Err(_)) | Err(_) => "<its Debug failed>".to_owned(),
        };
        self.push(field, cut(&text).into());
    }
}

/// Cuts a text that would not fit a journal frame, at a character.
fn cut(text: &str) -> &str {
    if text.len() <= TEXT_BYTES_MAX {
        return text;
    }
    let end = (0..=TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// Longest text of one field. Contents of prompts and documents that are longer are cut by the
/// capture policy at its own, configurable limit, which is below this.
const TEXT_BYTES_MAX: usize = 5 << 20;
