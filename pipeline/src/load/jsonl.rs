//! JSON lines: a record a line, its text taken out of its fields.

use serde_json::Value as Json;

/// The texts of the records, a blank line between them.
///
/// # Errors
/// The first line that is no record, or has none of `fields`, with its number.
pub(super) fn to_text(raw: &str, fields: &[String]) -> Result<String, String> {
    let mut texts = Vec::new();
    for (index, line) in raw.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let text =
            record(line, fields).map_err(|reason| format!("line {}: {reason}", index + 1))?;
        if !text.trim().is_empty() {
            texts.push(text);
        }
    }
    Ok(texts.join("\n\n"))
}

fn record(line: &str, fields: &[String]) -> Result<String, String> {
    let json: Json =
        serde_json::from_str(line).map_err(|error| format!("it is not JSON: {error}"))?;
    if let Json::String(text) = json {
        return Ok(text);
    }
    let Json::Object(record) = &json else {
        return Err("it is neither an object nor a text".to_owned());
    };
    if !fields.is_empty() {
        let found: Vec<String> = fields
            .iter()
            .filter_map(|field| json.pointer(&pointer(field)))
            .filter_map(scalar)
            .collect();
        if found.is_empty() {
            return Err(format!("it has none of load.jsonl_fields ({})", fields.join(", ")));
        }
        return Ok(found.join("\n"));
    }
    let usual = USUAL_FIELDS.iter().find_map(|field| record.get(*field).and_then(Json::as_str));
    if let Some(text) = usual {
        let title = TITLES.iter().find_map(|field| record.get(*field).and_then(Json::as_str));
        return Ok(title.map_or_else(|| text.to_owned(), |title| format!("{title}\n{text}")));
    }
    let mut lines = Vec::new();
    named("", &json, &mut lines);
    Ok(lines.join("\n"))
}

/// `a.b` as a JSON pointer.
fn pointer(field: &str) -> String {
    format!("/{}", field.replace('~', "~0").replace('/', "~1").replace('.', "/"))
}

fn scalar(json: &Json) -> Option<String> {
    match json {
        Json::String(text) => Some(text.clone()),
        Json::Number(_) | Json::Bool(_) => Some(json.to_string()),
        Json::Array(items) => {
            let items: Vec<String> = items.iter().filter_map(scalar).collect();
            (!items.is_empty()).then(|| items.join("\n"))
        }
        Json::Null | Json::Object(_) => None,
    }
}

/// All values with their names, a line each.
fn named(name: &str, json: &Json, lines: &mut Vec<String>) {
    let below = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match json {
        Json::Object(fields) => {
            // By name: the same record gives the same text, whatever wrote it.
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            fields.into_iter().for_each(|(key, value)| named(&below(key), value, lines));
        }
        Json::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            items.iter().for_each(|item| named(name, item, lines));
        }
        other => lines.extend(scalar(other).map(|value| format!("{name}: {value}"))),
    }
}

/// What data sets call the text of a record, the most telling first.
const USUAL_FIELDS: &[&str] =
    &["text", "content", "page_content", "body", "passage", "document", "contents"];
/// What stands above it.
const TITLES: &[&str] = &["title", "heading"];

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn records_become_their_text() {
        let raw = "{\"id\": 1, \"title\": \"A\", \"text\": \"one\"}\n\n\"two\"\r\n\
                   {\"n\": 3, \"of\": {\"no\": null, \"tags\": [\"a\", \"b\"], \"what\": \"x\"}}\n\
                   {\"text\": \" \"}";
        assert_eq!(to_text(raw, &[]).unwrap(), "A\none\n\ntwo\n\nn: 3\nof.tags: a\nb\nof.what: x");
        assert_eq!(to_text("", &[]).unwrap(), "");
    }

    #[test]
    fn the_fields_of_the_settings_are_taken_in_their_order() {
        let raw = "{\"a\": {\"b\": \"deep\"}, \"c\": 7, \"text\": \"not this\"}\n{\"c\": [1, 2]}";
        assert_eq!(to_text(raw, &fields(&["c", "a.b"])).unwrap(), "7\ndeep\n\n1\n2");
        let error = to_text(raw, &fields(&["a.b"])).unwrap_err();
        assert_eq!(error, "line 2: it has none of load.jsonl_fields (a.b)");
    }

    #[test]
    fn a_line_that_is_no_record_is_named() {
        for (raw, expected) in [
            ("{\"text\": \"a\"}\n\n{\"text\":", "line 3: it is not JSON"),
            ("7", "line 1: it is neither"),
            ("[1]", "line 1: it is neither"),
        ] {
            let error = to_text(raw, &[]).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
